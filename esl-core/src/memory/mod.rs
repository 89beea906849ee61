//! Storage in memory, shared by as many engines as are given it.
