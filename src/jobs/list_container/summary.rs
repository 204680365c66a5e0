//! What all blobs come to.

use super::analysis::BlobAnalysis;
use crate::prelude::*;
use std::collections::BTreeMap;

/// How many analyses the result shows; all of them are in a blob of their own if there are more.
const SHOWN: usize = 1000;

/// How many of the largest blobs are named.
const LARGEST: usize = 10;

/// How many groups are told apart, the larger ones; what is left counts as `other`. Names made by machines may all have
/// "extensions" of their own.
const GROUPS: usize = 1000;

/// The totals of the blobs that are there. Blobs that are gone are counted in `gone` and shown in `analyses`.
#[derive(Debug, Default, Serialize)]
pub(super) struct Summary {
    total_blobs: u64,
    /// In bytes.
    total_size: u64,
    /// How many were deleted while the job ran.
    gone: u64,
    /// How many of the total could not be read.
    unreadable: u64,
    /// By what follows the last dot, or `none`.
    by_extension: BTreeMap<String, Group>,
    /// By detected type, or `unknown`.
    by_type: BTreeMap<String, Group>,
    /// The largest first; of the same size, the first listed.
    largest: Vec<Extreme>,
    smallest: Option<Extreme>,
    /// In whole bytes.
    average_size: Option<u64>,
    newest: Option<Extreme>,
    oldest: Option<Extreme>,
    analyses: Vec<BlobAnalysis>,
    /// Where all analyses are, one JSON object a line, if there are more than `analyses` shows.
    #[serde(skip_serializing_if = "Option::is_none")]
    analyses_blob: Option<Value>,
}

/// Blobs of one kind.
#[derive(Debug, Default, Clone, Serialize)]
struct Group {
    count: u64,
    /// In bytes.
    size: u64,
    /// Of the total size, from 0 to 1.
    share: f64,
}

/// A blob that stands out.
#[derive(Debug, Clone, Serialize)]
struct Extreme {
    name: String,
    size: u64,
    last_modified: Time,
}

impl Summary {
    /// Sums up, one analysis at a time. If there are more than the result shows, `keep` is handed all of them as lines of
    /// JSON, and returns where they are.
    pub(super) fn of(
        analyses: impl Iterator<Item = Result<BlobAnalysis>>,
        keep: impl FnOnce(Vec<u8>) -> Value,
    ) -> Result<Self> {
        let mut summary = Self::default();
        let mut lines = Vec::new();
        for blob in analyses {
            let blob = blob?;
            if blob.gone {
                summary.gone += 1;
            } else {
                summary.count(&blob);
            }
            serde_json::to_writer(&mut lines, &blob)?;
            lines.push(b'\n');
            if summary.analyses.len() < SHOWN {
                summary.analyses.push(blob);
            }
        }
        if summary.total_blobs + summary.gone > SHOWN as u64 {
            summary.analyses_blob = Some(keep(lines));
        }
        summary.average_size = summary.total_size.checked_div(summary.total_blobs);
        for groups in [&mut summary.by_extension, &mut summary.by_type] {
            keep_largest(groups);
            for group in groups.values_mut() {
                group.share = share(group.size, summary.total_size);
            }
        }
        Ok(summary)
    }

    fn count(&mut self, blob: &BlobAnalysis) {
        self.total_blobs += 1;
        self.total_size += blob.size;
        self.unreadable += u64::from(blob.unreadable.is_some());
        add(&mut self.by_extension, blob.extension.as_deref().unwrap_or("none"), blob.size);
        add(&mut self.by_type, blob.detected_type.as_deref().unwrap_or("unknown"), blob.size);

        let place = self.largest.partition_point(|other| other.size >= blob.size);
        if place < LARGEST {
            self.largest.insert(place, Extreme::of(blob));
            self.largest.truncate(LARGEST);
        }
        if self.smallest.as_ref().is_none_or(|smallest| blob.size < smallest.size) {
            self.smallest = Some(Extreme::of(blob));
        }
        if self.newest.as_ref().is_none_or(|newest| blob.last_modified > newest.last_modified) {
            self.newest = Some(Extreme::of(blob));
        }
        if self.oldest.as_ref().is_none_or(|oldest| blob.last_modified < oldest.last_modified) {
            self.oldest = Some(Extreme::of(blob));
        }
    }
}

impl Extreme {
    fn of(blob: &BlobAnalysis) -> Self {
        Self { name: blob.name.clone(), size: blob.size, last_modified: blob.last_modified }
    }
}

fn add(groups: &mut BTreeMap<String, Group>, kind: &str, size: u64) {
    if !groups.contains_key(kind) {
        groups.insert(kind.to_owned(), Group::default());
    }
    if let Some(group) = groups.get_mut(kind) {
        group.count += 1;
        group.size += size;
    }
}

fn keep_largest(groups: &mut BTreeMap<String, Group>) {
    if groups.len() <= GROUPS {
        return;
    }
    let mut by_size: Vec<_> = std::mem::take(groups).into_iter().collect();
    by_size.sort_by_key(|(_, group)| std::cmp::Reverse((group.size, group.count)));
    let rest = by_size.split_off(GROUPS - 1);
    let other = rest.iter().fold(Group::default(), |other, (_, group)| Group {
        count: other.count + group.count,
        size: other.size + group.size,
        share: 0.0,
    });
    groups.extend(by_size);
    groups.insert("other".to_owned(), other);
}

/// Zero if all blobs are empty.
#[expect(clippy::cast_precision_loss, reason = "15 digits are enough for a share")]
fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blob(name: &str, size: u64, detected_type: Option<&str>, written: i64) -> BlobAnalysis {
        let properties = BlobProperties {
            name: name.to_owned(),
            size,
            content_type: None,
            last_modified: Time::from_unix_millis(written),
            etag: "1".to_owned(),
        };
        BlobAnalysis { detected_type: detected_type.map(str::to_owned), ..properties.into() }
    }

    /// The summary as JSON, and the lines that were kept beside it.
    fn summary(blobs: impl IntoIterator<Item = BlobAnalysis>) -> (Value, Option<String>) {
        let mut kept = None;
        let keep = |lines| {
            kept = Some(String::from_utf8(lines).expect("text"));
            json!("kept")
        };
        let summary = Summary::of(blobs.into_iter().map(Ok), keep).expect("a summary");
        (serde_json::to_value(summary).expect("json"), kept)
    }

    #[test]
    fn no_blobs_come_to_zeros_and_nulls() {
        let (summary, kept) = summary([]);
        assert_eq!(
            summary,
            json!({
                "total_blobs": 0, "total_size": 0, "gone": 0, "unreadable": 0, "by_extension": {}, "by_type": {},
                "largest": [], "smallest": null, "average_size": null, "newest": null, "oldest": null, "analyses": []
            })
        );
        assert_eq!(kept, None);
    }

    #[test]
    fn blobs_are_summed_up_by_kind_and_the_gone_are_only_counted() {
        let gone = BlobAnalysis { gone: true, ..blob("gone.tif", 1_000_000, None, 99) };
        let cold = BlobAnalysis { unreadable: Some("archived".to_owned()), ..blob("cold.tif", 50, None, 3) };
        let (summary, _) =
            summary([blob("a.tif", 100, Some("image/tiff"), 2), gone, cold, blob("readme", 50, Some("text/plain"), 1)]);
        let extreme = |name: &str, size: u64, written: i64| json!({"name": name, "size": size, "last_modified": Time::from_unix_millis(written)});
        assert_eq!(summary["total_blobs"], 3);
        assert_eq!(summary["total_size"], 200);
        assert_eq!(summary["gone"], 1);
        assert_eq!(summary["unreadable"], 1);
        assert_eq!(summary["average_size"], 66);
        assert_eq!(
            summary["by_extension"],
            json!({"none": {"count": 1, "size": 50, "share": 0.25}, ".tif": {"count": 2, "size": 150, "share": 0.75}})
        );
        assert_eq!(
            summary["by_type"],
            json!({
                "image/tiff": {"count": 1, "size": 100, "share": 0.5},
                "text/plain": {"count": 1, "size": 50, "share": 0.25},
                "unknown": {"count": 1, "size": 50, "share": 0.25}
            })
        );
        assert_eq!(
            summary["largest"],
            json!([extreme("a.tif", 100, 2), extreme("cold.tif", 50, 3), extreme("readme", 50, 1)])
        );
        assert_eq!(summary["smallest"], extreme("cold.tif", 50, 3));
        assert_eq!(summary["newest"], extreme("cold.tif", 50, 3));
        assert_eq!(summary["oldest"], extreme("readme", 50, 1));
        assert_eq!(summary["analyses"].as_array().map(Vec::len), Some(4));
    }

    #[test]
    fn only_empty_blobs_share_nothing() {
        let (summary, _) = summary([blob("a.txt", 0, None, 0)]);
        assert_eq!(summary["by_extension"][".txt"], json!({"count": 1, "size": 0, "share": 0.0}));
        assert_eq!(summary["average_size"], 0);
    }

    #[test]
    fn the_ten_largest_are_named() {
        let (summary, _) = summary((0..30).map(|size| blob(&format!("{size}"), size * 7 % 30, None, 0)));
        let sizes: Vec<_> = summary["largest"].as_array().expect("a list").iter().map(|one| &one["size"]).collect();
        assert_eq!(sizes, [29, 28, 27, 26, 25, 24, 23, 22, 21, 20]);
    }

    #[test]
    fn a_thousand_analyses_are_shown_and_all_kept_if_there_are_more() {
        let blobs = |count: u64| (0..count).map(|size| blob(&format!("{size}.tif"), size, None, 0));
        let (exactly, kept) = summary(blobs(1000));
        assert_eq!((exactly["analyses"].as_array().map(Vec::len), kept), (Some(1000), None));
        assert_eq!(exactly.get("analyses_blob"), None);

        let (more, kept) = summary(blobs(1001));
        assert_eq!((more["analyses"].as_array().map(Vec::len), &more["analyses_blob"]), (Some(1000), &json!("kept")));
        let lines: Vec<BlobAnalysis> =
            kept.expect("kept").lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect();
        assert_eq!(lines, blobs(1001).collect::<Vec<_>>());
    }

    #[test]
    fn beyond_a_thousand_kinds_the_small_ones_are_one() {
        let (summary, _) = summary((1..=1500).map(|size| blob(&format!("part.{size}"), size, None, 0)));
        let groups = summary["by_extension"].as_object().expect("groups");
        assert_eq!(groups.len(), 1000);
        assert!(groups.contains_key(".1500") && groups.contains_key(".502") && !groups.contains_key(".501"));
        assert_eq!((&groups["other"]["count"], &groups["other"]["size"]), (&json!(501), &json!(501 * 502 / 2)));
    }
}
