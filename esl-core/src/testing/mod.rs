//! For tests: the suite that every storage passes, and a clock that is moved by hand.
