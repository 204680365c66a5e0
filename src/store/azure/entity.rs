//! A row as the table service holds it: an entity whose document is cut into string properties.

use super::encode::encode;
use super::fault::Fault;
use crate::ports::{Etag, Row, Select};
use serde_json::{Map, Value};
use std::fmt::Write as _;

/// The most UTF-16 code units in one property; the service holds 32 Ki.
const PIECE: usize = 32_000;

/// An entity's JSON text.
pub(super) fn write(partition: &str, key: &str, document: &Value) -> String {
    let mut entity = Map::new();
    entity.insert("PartitionKey".to_owned(), partition.into());
    entity.insert("RowKey".to_owned(), key.into());
    for (index, piece) in pieces(&document.to_string()).into_iter().enumerate() {
        entity.insert(property(index), piece.into());
    }
    Value::Object(entity).to_string()
}

/// JSON text in ASCII only. Azurite takes the pieces in which a lone entity arrives for whole characters.
pub(super) fn ascii(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for character in json.chars() {
        if character.is_ascii() {
            text.push(character);
        } else {
            for unit in character.encode_utf16(&mut [0; 2]) {
                _ = write!(text, "\\u{unit:04x}"); // a String takes everything
            }
        }
    }
    text
}

/// Reads an entity. `etag` is the answer's header where one entity was asked for.
pub(super) fn read(entity: &Value, etag: Option<&str>, select: Select) -> Result<Row, Fault> {
    let string = |name: &str| entity.get(name).and_then(Value::as_str);
    let key = string("RowKey").ok_or_else(|| Fault::unreadable("an entity without `RowKey`"))?;
    let etag = etag
        .or_else(|| string("odata.etag"))
        .map(str::to_owned)
        .or_else(|| string("Timestamp").map(|time| format!("W/\"datetime'{}'\"", encode(time))))
        .ok_or_else(|| Fault::unreadable(format!("row `{key}` came without a version")))?;
    let document = match select {
        Select::Keys => Value::Null,
        Select::Documents => {
            let text: String = (0..).map_while(|index| string(&property(index))).collect();
            serde_json::from_str(&text).map_err(|error| Fault::unreadable(format!("row `{key}`: {error}")))?
        }
    };
    Ok(Row { key: key.to_owned(), etag: Etag(etag), document })
}

fn property(index: usize) -> String {
    if index == 0 { "Document".to_owned() } else { format!("Document{index}") }
}

/// Cuts between characters, so never inside a surrogate pair.
fn pieces(text: &str) -> Vec<&str> {
    let mut pieces = Vec::new();
    let (mut start, mut units) = (0, 0);
    for (at, character) in text.char_indices() {
        if units + character.len_utf16() > PIECE {
            pieces.push(&text[start..at]);
            (start, units) = (at, 0);
        }
        units += character.len_utf16();
    }
    pieces.push(&text[start..]);
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_long_document_is_cut_between_characters_and_reads_back() {
        for filler in ["x", "ü", "\u{1F680}", "\"", "\u{FFFF}\u{1F680}x"] {
            let document = json!({ "n": 0.1, "text": filler.repeat(45_001) });
            let mut entity: Value = serde_json::from_str(&write("p", "k", &document)).expect("JSON");
            entity["odata.etag"] = "v1".into();
            let longest = entity.as_object().expect("an object").values();
            assert!(longest.filter_map(Value::as_str).all(|text| text.encode_utf16().count() <= PIECE));
            let row = read(&entity, None, Select::Documents).expect("a row");
            assert_eq!((row.key.as_str(), row.etag, row.document), ("k", Etag("v1".to_owned()), document));
        }
    }

    #[test]
    fn ascii_text_means_the_same() {
        let entity = write("p", "k", &json!({ "text": "aü\u{1F680}\u{FFFF}\"\\" }));
        assert!(ascii(&entity).is_ascii() && ascii(&entity).contains("\\ud83d\\ude80"));
        let [one, other] = [&entity, &ascii(&entity)].map(|text| serde_json::from_str::<Value>(text).expect("JSON"));
        assert_eq!(one, other);
    }

    #[test]
    fn the_version_falls_back_to_the_time_it_is_made_of() {
        let entity = json!({ "RowKey": "k", "Timestamp": "2026-11-24T03:09:00.1234567Z" });
        let row = read(&entity, None, Select::Keys).expect("a row");
        assert_eq!(row.etag.0, "W/\"datetime'2026-11-24T03%3A09%3A00.1234567Z'\"");
        assert_eq!(row.document, Value::Null);
        assert!(read(&json!({ "RowKey": "k" }), None, Select::Keys).is_err());
    }
}
