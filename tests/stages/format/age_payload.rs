//! The payload of an age file, beside the `age` crate, which says what is right.

use std::collections::HashSet;
use std::io::{self, BufReader, Read, Write};

use age::secrecy::ExposeSecret as _;
use age::{DecryptError, Decryptor, EncryptError, Encryptor};
use age_core::format::{FileKey, Stanza};
use proptest::prelude::*;
use sealift::format::archive::age_payload::{
    FILE_KEY_BYTES, NONCE_BYTES, PayloadKey, PayloadReader, PayloadWriter,
};

use crate::support::tree::noise;

const CHUNK: usize = 64 << 10;
const SEALED_CHUNK: usize = CHUNK + 16;

/// Wraps a file key by telling it.
struct Plain;

impl age::Recipient for Plain {
    fn wrap_file_key(
        &self,
        file_key: &FileKey,
    ) -> Result<(Vec<Stanza>, HashSet<String>), EncryptError> {
        let stanza = Stanza {
            tag: "plain".to_owned(),
            args: Vec::new(),
            body: file_key.expose_secret().to_vec(),
        };
        Ok((vec![stanza], HashSet::new()))
    }
}

impl age::Identity for Plain {
    fn unwrap_stanza(&self, stanza: &Stanza) -> Option<Result<FileKey, DecryptError>> {
        let key: [u8; FILE_KEY_BYTES] = stanza.body.clone().try_into().ok()?;
        Some(Ok(FileKey::new(Box::new(key))))
    }
}

/// A header whose file key anyone can read, and the key of its payload.
struct Head {
    bytes: Vec<u8>,
    file_key: [u8; FILE_KEY_BYTES],
}

impl Head {
    fn new() -> Self {
        let sealed = sealed_by_age(b"");
        // The payload of nothing is a tag.
        Self::of(&sealed[..sealed.len() - 16])
    }

    fn of(head: &[u8]) -> Self {
        let text = String::from_utf8_lossy(head);
        let body = text.lines().nth(2).unwrap();
        use base64::Engine as _;
        let engine = base64::engine::general_purpose::STANDARD_NO_PAD;
        Self {
            bytes: head.to_vec(),
            file_key: engine.decode(body).unwrap().try_into().unwrap(),
        }
    }

    fn key(&self) -> PayloadKey {
        let nonce = self.bytes.last_chunk::<NONCE_BYTES>().unwrap();
        PayloadKey::derive(&self.file_key, nonce).unwrap()
    }

    fn seal(&self, plain: &[u8], steps: &[usize]) -> Vec<u8> {
        let mut writer = PayloadWriter::new(self.key(), self.bytes.clone());
        let (mut rest, mut steps) = (plain, steps.iter().cycle());
        while !rest.is_empty() {
            let step = steps.next().map_or(rest.len(), |step| *step);
            let (now, later) = rest.split_at(step.clamp(1, rest.len()));
            writer.write_all(now).unwrap();
            rest = later;
        }
        writer.finish().unwrap()
    }

    fn open(&self, payload: &[u8], buffer: usize) -> io::Result<Vec<u8>> {
        let input = BufReader::with_capacity(buffer, payload);
        let mut plain = Vec::new();
        PayloadReader::new(self.key(), input).read_to_end(&mut plain)?;
        Ok(plain)
    }
}

fn sealed_by_age(plain: &[u8]) -> Vec<u8> {
    let encryptor = Encryptor::with_recipients(std::iter::once(&Plain as _)).unwrap();
    let mut writer = encryptor.wrap_output(Vec::new()).unwrap();
    writer.write_all(plain).unwrap();
    writer.finish().unwrap()
}

fn opened_by_age(sealed: &[u8]) -> io::Result<Vec<u8>> {
    let decryptor = Decryptor::new_buffered(sealed).unwrap();
    let mut reader = decryptor.decrypt(std::iter::once(&Plain as _)).unwrap();
    let mut plain = Vec::new();
    reader.read_to_end(&mut plain)?;
    Ok(plain)
}

/// Lengths around whole chunks, where the last one has a mark of its own.
fn lengths() -> impl Strategy<Value = usize> {
    (0..4usize, 0..5usize, 0..CHUNK).prop_map(|(chunks, near, far)| match near {
        0..3 => (chunks * CHUNK + near).saturating_sub(1),
        _ => chunks * CHUNK + far,
    })
}

#[test]
fn every_length_at_the_ends_of_chunks() {
    let head = Head::new();
    for length in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 2 * CHUNK + 1] {
        let plain = noise(0, length);
        let sealed = head.seal(&plain, &[]);
        assert!(opened_by_age(&sealed).unwrap() == plain, "{length}");
        let sealed = sealed_by_age(&plain);
        let at = sealed.len() - length - 16 * length.div_ceil(CHUNK).max(1);
        let head = Head::of(&sealed[..at]);
        assert!(head.open(&sealed[at..], 1).unwrap() == plain, "{length}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn what_one_seals_the_other_opens(
        length in lengths(),
        steps in prop::collection::vec(1..3 * CHUNK, 1..5),
        buffer in 1..3 * CHUNK,
    ) {
        let (head, plain) = (Head::new(), noise(0, length));
        let sealed = head.seal(&plain, &steps);
        prop_assert!(opened_by_age(&sealed).unwrap() == plain);
        prop_assert!(head.open(&sealed[head.bytes.len()..], buffer).unwrap() == plain);
    }

    /// As the `age` crate: both refuse each damage, and report a cut at a chunk's end as a cut.
    #[test]
    fn no_damage_passes(length in lengths(), at in any::<prop::sample::Index>(), kind in 0..6) {
        let (head, plain) = (Head::new(), noise(0, length));
        let sealed = head.seal(&plain, &[]);
        let whole = sealed[head.bytes.len()..].to_vec();
        let mut payload = whole.clone();
        let place = at.index(payload.len());
        match kind {
            0 => payload.truncate(place),
            1 => payload[place] ^= 1,
            2 => payload.push(0),
            3 => payload.extend_from_slice(&whole),
            4 => payload.truncate(place / SEALED_CHUNK * SEALED_CHUNK),
            _ => {
                // The first chunk, and then all again from some chunk on.
                payload.truncate(SEALED_CHUNK);
                payload.extend_from_slice(&whole[place / SEALED_CHUNK * SEALED_CHUNK..]);
            }
        }
        prop_assume!(payload != whole);
        let error = head.open(&payload, 1 << 17).unwrap_err();
        let told = opened_by_age(&[&head.bytes[..], &payload].concat()).unwrap_err();
        let is_cut = matches!(kind, 0 | 4) && payload.len() % SEALED_CHUNK == 0;
        prop_assert_eq!(error.kind() == io::ErrorKind::UnexpectedEof, is_cut, "{}", error);
        prop_assert_eq!(told.kind() == io::ErrorKind::UnexpectedEof, is_cut, "{}", told);
    }
}
