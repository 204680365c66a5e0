//! The job types that ship: one file or folder each, named nowhere but here.

mod hello_world;
mod list_container;
