use crate::ports::ContainerName;
use crate::store::{Access, Mount};
use std::path::PathBuf;

/// Reads `NAME=FOLDER` or `NAME=FOLDER:rw`.
pub(super) fn parse_mount(text: &str) -> Result<Mount, String> {
    let (name, folder) = text.split_once('=').ok_or("expected NAME=FOLDER")?;
    let container = ContainerName::parse(name).map_err(|error| error.to_string())?;
    let (folder, access) = match folder.strip_suffix(":rw") {
        Some(folder) => (folder, Access::ReadWrite),
        None => (folder, Access::ReadOnly),
    };
    let folder = PathBuf::from(folder);
    if !folder.is_dir() {
        return Err(format!("`{}` is not a folder", folder.display()));
    }
    Ok(Mount { container, folder, access })
}
