//! Checksums of content, as clients of Azure's storage send and ask for them.
//!
//! They find what was damaged on its way. Anybody can make some content to a given checksum, so nothing may be trusted for
//! having one. Start at [`Summing`].

use md5::Digest as _;

/// The MD5 of some content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Md5(pub [u8; 16]);

/// The CRC-64 of some content, by the polynomial that NVMe has too; Azure's storage writes it with the low byte first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Crc64(pub u64);

/// What some content adds up to, as far as anybody has said or asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checksums {
    /// Its MD5.
    pub md5: Option<Md5>,
    /// Its CRC-64.
    pub crc64: Option<Crc64>,
}

/// Which checksums are asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// MD5.
    pub md5: bool,
    /// CRC-64.
    pub crc64: bool,
}

/// Content adds up to something else than was said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mismatch {
    /// Its MD5.
    Md5 {
        /// What was said.
        said: Md5,
        /// What it is.
        found: Md5,
    },
    /// Its CRC-64.
    Crc64 {
        /// What was said.
        said: Crc64,
        /// What it is.
        found: Crc64,
    },
}

impl Asked {
    /// Whether there is nothing to add up.
    pub const fn is_nothing(self) -> bool {
        !self.md5 && !self.crc64
    }
}

impl Checksums {
    /// Holds what was said against what was `found`. What was not added up is not held against anything.
    pub fn check(&self, found: &Self) -> Result<(), Mismatch> {
        match (self.md5, found.md5) {
            (Some(said), Some(found)) if said != found => return Err(Mismatch::Md5 { said, found }),
            _ => {}
        }
        match (self.crc64, found.crc64) {
            (Some(said), Some(found)) if said != found => Err(Mismatch::Crc64 { said, found }),
            _ => Ok(()),
        }
    }
}

/// Adds up content as it passes.
#[derive(Clone, Debug)]
pub struct Summing {
    md5: Option<md5::Md5>,
    crc64: Option<u64>,
}

impl Summing {
    /// Of no bytes yet.
    pub fn begin(asked: Asked) -> Self {
        Self { md5: asked.md5.then(md5::Md5::new), crc64: asked.crc64.then_some(u64::MAX) }
    }

    /// Takes `bytes` behind those before.
    pub fn add(&mut self, bytes: &[u8]) {
        if let Some(md5) = &mut self.md5 {
            md5.update(bytes);
        }
        if let Some(crc) = &mut self.crc64 {
            *crc = bytes.iter().fold(*crc, |crc, byte| step(crc ^ u64::from(*byte)) ^ (crc >> 8));
        }
    }

    /// What they add up to.
    pub fn end(self) -> Checksums {
        Checksums {
            md5: self.md5.map(|md5| Md5(md5.finalize().into())),
            crc64: self.crc64.map(|crc| Crc64(crc ^ u64::MAX)),
        }
    }
}

/// What the low byte of `crc` does to the rest.
fn step(crc: u64) -> u64 {
    const TABLE: [u64; 256] = table();

    let [low, ..] = crc.to_le_bytes();
    TABLE.get(usize::from(low)).copied().unwrap_or_default()
}

#[expect(
    clippy::indexing_slicing,
    reason = "evaluated by the compiler alone, which would refuse a place that is not there"
)]
const fn table() -> [u64; 256] {
    /// Bits in reverse order.
    const POLYNOMIAL: u64 = 0x9a6c_9329_ac4b_c9b5;

    let mut table = [0; 256];
    let mut byte = 0;
    while byte < table.len() {
        let mut crc = byte as u64;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ POLYNOMIAL } else { crc >> 1 };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: Asked = Asked { md5: true, crc64: true };

    fn sums(pieces: &[&[u8]]) -> Checksums {
        let mut summing = Summing::begin(BOTH);
        for piece in pieces {
            summing.add(piece);
        }
        summing.end()
    }

    #[test]
    fn content_adds_up_to_what_others_found() {
        // The first two are the check values of the two algorithms; the last is what Azure's storage said of these bytes
        // (a recorded exchange of azure-sdk-for-js with the real service).
        let many = [b'b'; 1_024];
        let cases: [(&[u8], Option<&str>, u64); 3] = [
            (b"", Some("d41d8cd98f00b204e9800998ecf8427e"), 0),
            (b"123456789", Some("25f9e794323b453885f5181f1b624d0b"), 0xae8b_1486_0a79_9888),
            (&many, None, u64::from_le_bytes([0xa4, 0xaf, 0xb2, 0xa5, 0x4f, 0xa3, 0xad, 0xe3])),
        ];
        for (content, md5, crc64) in cases {
            let found = sums(&[content]);
            assert_eq!(found.crc64, Some(Crc64(crc64)), "{content:?}");
            if let Some(md5) = md5 {
                assert_eq!(hex::encode(found.md5.unwrap().0), md5, "{content:?}");
            }
        }
        assert_eq!(sums(&[b"1234", b"", b"56789"]), sums(&[b"123456789"]), "in pieces as in one");
        let nothing = Summing::begin(Asked::default()).end();
        assert_eq!(nothing, Checksums::default());
    }

    #[test]
    fn what_was_said_is_held_against_what_is_found() {
        let (good, other) = (sums(&[b"good"]), sums(&[b"other"]));
        let md5 = |sums: Checksums| Checksums { crc64: None, ..sums };
        let crc64 = |sums: Checksums| Checksums { md5: None, ..sums };
        for said in [good, md5(good), crc64(good), Checksums::default()] {
            assert_eq!(said.check(&good), Ok(()), "{said:?}");
        }
        assert!(matches!(md5(other).check(&good), Err(Mismatch::Md5 { .. })));
        assert!(matches!(crc64(other).check(&good), Err(Mismatch::Crc64 { .. })));
        assert_eq!(crc64(other).check(&md5(good)), Ok(()), "it was not added up");
    }
}
