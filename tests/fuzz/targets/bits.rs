//! Choices drawn from the input of a target. When it is used up, all further choices are zero, so
//! that every input means something and a longer one continues a shorter one.

/// The rest of an input.
pub struct Bits<'a>(&'a [u8]);

impl<'a> Bits<'a> {
    pub fn new(data: &'a [u8]) -> Self {
        Self(data)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        *first
    }

    pub fn flag(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    pub fn below(&mut self, limit: usize) -> usize {
        usize::from(self.byte()) % limit
    }

    pub fn number(&mut self) -> u64 {
        let bytes = [0; 8].map(|_: u8| self.byte());
        u64::from_le_bytes(bytes)
    }

    /// A number near `base`, or one of those at which arithmetic breaks.
    pub fn near(&mut self, base: u64) -> u64 {
        match self.byte() {
            by @ 0..=127 => base.wrapping_add(u64::from(by)),
            by @ 128..=239 => base.saturating_sub(u64::from(by - 127)),
            240..=243 => u64::MAX,
            244..=247 => u64::MAX - 1,
            248 => u64::MAX / 2,
            249 => u64::MAX / 2 + 1,
            250..=252 => 0,
            _ => self.number(),
        }
    }

    /// So many bytes, or what is left.
    pub fn bytes(&mut self, len: usize) -> &'a [u8] {
        let (bytes, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        bytes
    }

    /// A string of bytes that says how long it is.
    pub fn string(&mut self) -> &'a [u8] {
        let len = match self.byte() {
            255 => usize::from(u16::from_le_bytes([self.byte(), self.byte()])),
            len => usize::from(len),
        };
        self.bytes(len)
    }
}
