//! The job types that ship: one file each, named nowhere but here.

mod hello_world;
