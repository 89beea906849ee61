//! What happened, as a hash, and as text for whoever asks.

use std::fmt;

/// Everything that happens in a world is written here, in its order.
#[derive(Debug)]
pub(crate) struct Trace {
    hash: u64,
    text: Option<String>,
}

impl Trace {
    pub(crate) fn new(keeps_text: bool) -> Self {
        Self { hash: 0xCBF2_9CE4_8422_2325, text: keeps_text.then(String::new) }
    }

    pub(crate) const fn hash(&self) -> u64 {
        self.hash
    }

    pub(crate) fn take_text(&mut self) -> String {
        self.text.take().unwrap_or_default()
    }
}

impl fmt::Write for Trace {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        // FNV-1a.
        for byte in text.bytes() {
            self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3);
        }
        if let Some(all) = &mut self.text {
            all.push_str(text);
        }
        Ok(())
    }
}
