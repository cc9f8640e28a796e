//! Undoing a layer's compression, told by its first bytes as docker tells it: gzip of several members (RFC 1952),
//! zstd of several frames (RFC 8878), or none.

use std::io::{self, BufReader, Chain, Cursor, Read};

use flate2::bufread::MultiGzDecoder;

use super::stream_error;
use crate::error::{Class, Error, Result};

const BUFFER: usize = 256 << 10;

type Input<'a> = BufReader<Chain<Cursor<Vec<u8>>, &'a mut dyn Read>>;

/// The uncompressed bytes of a layer.
pub(crate) enum Decoder<'a> {
    Plain(Input<'a>),
    Gzip(Box<MultiGzDecoder<Input<'a>>>),
    Zstd(Box<zstd::stream::read::Decoder<'static, Input<'a>>>),
}

impl<'a> Decoder<'a> {
    /// Looks at the first bytes of `reader` and chooses. `media_type` only helps to say what is wrong.
    pub(crate) fn open(reader: &'a mut dyn Read, media_type: &str) -> Result<Self> {
        if media_type.ends_with("+encrypted") {
            return Err(unsupported(media_type, "it is encrypted"));
        }
        let mut magic = Vec::with_capacity(6);
        reader.take(6).read_to_end(&mut magic).map_err(stream_error)?;
        let start = magic.clone();
        let input = BufReader::with_capacity(BUFFER, Cursor::new(magic).chain(reader));
        Ok(match start.as_slice() {
            [0x1f, 0x8b, ..] => Decoder::Gzip(Box::new(MultiGzDecoder::new(input))),
            // A frame, or a skippable frame before the first.
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => {
                let decoder = zstd::stream::read::Decoder::with_buffer(input).map_err(stream_error)?;
                Decoder::Zstd(Box::new(decoder))
            }
            [0xfd, b'7', b'z', b'X', b'Z', 0] => return Err(unsupported(media_type, "it is compressed with xz")),
            [b'B', b'Z', b'h', ..] => return Err(unsupported(media_type, "it is compressed with bzip2")),
            _ => Decoder::Plain(input),
        })
    }
}

impl Read for Decoder<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Decoder::Plain(input) => input.read(buffer),
            Decoder::Gzip(decoder) => decoder.read(buffer),
            Decoder::Zstd(decoder) => decoder.read(buffer),
        }
    }
}

fn unsupported(media_type: &str, why: &str) -> Error {
    let what = if media_type.is_empty() { "layer" } else { media_type };
    Error::new(Class::Unsupported, format!("{what}: {why}")).with_hint("gzip, zstd and plain tar can be read")
}
