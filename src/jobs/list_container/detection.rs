//! A blob's media type, as its first bytes tell it.

use infer::MatcherType;
use serde::de::IgnoredAny;

/// The media type, if the first bytes of a blob tell one.
pub(super) fn detect_type(head: &[u8]) -> Option<&'static str> {
    let signature = infer::get(head);
    match text(head) {
        // Short signatures occur in text ("BM" begins a bitmap, "MZ" a program), so only formats of text are believed.
        Some(text) => Some(match signature {
            Some(known) if is_format_of_text(&known) => known.mime_type(),
            _ if is_json(text) => "application/json",
            _ => "text/plain",
        }),
        None => signature.map(|known| known.mime_type()).or_else(|| further_type(head)),
    }
}

/// The head as text, if it is some: UTF-8 (a last character may be cut off) without control characters.
fn text(head: &[u8]) -> Option<&str> {
    let whole = match str::from_utf8(head) {
        Ok(whole) => whole,
        Err(error) if error.error_len().is_none() => str::from_utf8(&head[..error.valid_up_to()]).ok()?,
        Err(_) => return None,
    };
    let is_of_text = |character: char| !character.is_control() || "\t\n\r\u{c}\u{1b}".contains(character);
    (!whole.is_empty() && whole.chars().all(is_of_text)).then_some(whole)
}

fn is_format_of_text(known: &infer::Type) -> bool {
    known.matcher_type() == MatcherType::Text
        || ["application/pdf", "application/postscript", "application/rtf", "application/x-x509-ca-cert"]
            .contains(&known.mime_type())
}

/// Whether the text is an object or array of JSON, or the beginning of one.
fn is_json(text: &str) -> bool {
    let text = text.trim_start_matches('\u{feff}').trim_start();
    text.starts_with(['{', '['])
        && match serde_json::from_str::<IgnoredAny>(text) {
            Ok(_) => true,
            Err(error) => error.is_eof(),
        }
}

/// The media types that `infer` does not know, and the TIFF files that it misses.
fn further_type(head: &[u8]) -> Option<&'static str> {
    const SIGNATURES: [(&[u8], &str); 10] = [
        (b"II*\0", "image/tiff"),
        (b"MM\0*", "image/tiff"),
        (b"II+\0", "image/tiff"), // BigTIFF
        (b"MM\0+", "image/tiff"),
        (b"\x89HDF\r\n\x1a\n", "application/x-hdf5"),
        (b"CDF\x01", "application/x-netcdf"),
        (b"CDF\x02", "application/x-netcdf"),
        (b"PAR1", "application/vnd.apache.parquet"),
        (b"\xff\xfe", "text/plain"), // UTF-16, by its byte order mark
        (b"\xfe\xff", "text/plain"),
    ];
    SIGNATURES.iter().find(|(signature, _)| head.starts_with(signature)).map(|(_, media_type)| *media_type)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_bytes_tell_the_type() {
        let long_json = format!("{{\"type\": \"FeatureCollection\", \"features\": [{}", "[1, 2], ".repeat(1000));
        for (head, expected) in [
            (&b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR"[..], Some("image/png")),
            (b"II*\0\x08\0\0\0\x10\0", Some("image/tiff")),
            (b"II*\0\x08\x01\0\0CR", Some("image/tiff")),
            (b"II+\0\x08\0\0\0\x10\0\0\0\0\0\0\0", Some("image/tiff")),
            (b"%PDF-1.7\nplain", Some("application/pdf")),
            (b"<!DOCTYPE html><html></html>", Some("text/html")),
            (b"<?xml version=\"1.0\"?><a/>", Some("text/xml")),
            (b"#!/bin/sh\nexit\n", Some("text/x-shellscript")),
            (b"BMW,1\nMINI,2\n", Some("text/plain")),
            (b"name;size\r\n\xc3\x84pfel;1\r\n", Some("text/plain")),
            (b"\xef\xbb\xbfa,b\n", Some("text/plain")),
            (b"\xff\xfea\0,\0b\0\n\0", Some("text/plain")),
            (b"cut in a character \xe2\x82", Some("text/plain")),
            (b"{ \"a\": [1] }\n", Some("application/json")),
            (long_json.as_bytes(), Some("application/json")),
            (b"[section]\nkey=value\n", Some("text/plain")),
            (b"latin \xe4 one", None),
            (b"\0\x01\x02\x03", None),
            (b"", None),
        ] {
            assert_eq!(detect_type(head), expected, "{}", head.escape_ascii());
        }
    }
}
