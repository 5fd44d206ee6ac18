//! Images to what the engine computes: decoded here, cut and computed by the model's projector, and kept for a while, as a
//! conversation sends its images again with each turn.

use std::io::Cursor;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageReader, Limits, RgbImage};
use sha2::{Digest, Sha256};

use super::error::{LoadError, RunnerError};
use super::local::load_error;
use super::offload;
use super::spec::{FlashAttention, LoadSpec};
use crate::engine::{ImageRows, TokenId};
use crate::llama::{self, Backend, ImagePart, LlamaError, Model, Projector, ProjectorParams};
use crate::placement::{Bytes, Choice};

/// Longest side that is decoded, in pixels.
const LONGEST: u32 = 16_384;
/// Bytes that decoding may take.
const DECODED: u64 = 512 << 20;
/// Bytes of images that are kept.
const KEPT: usize = 128 << 20;

/// Of an image's file.
type Digested = [u8; 32];

/// A part of an image, as it stands in a prompt.
#[derive(Clone, Debug)]
pub(super) enum Seen {
    Tokens(Vec<TokenId>),
    Rows(Arc<ImageRows>),
}

/// A projector, and what it saw lately.
#[derive(Debug)]
pub(super) struct Sight {
    projector: Projector,
    /// The latest last.
    kept: Mutex<Vec<(Digested, Arc<[Seen]>)>>,
    /// One image at a time: whoever sends the same one meanwhile finds it.
    looking: Mutex<()>,
}

impl Sight {
    /// Loads what `spec` names for `model`, whose place is `choice`.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub fn load(
        backend: Backend,
        path: &Path,
        spec: &LoadSpec,
        model: &Model,
        choice: &Choice,
        threads: u32,
    ) -> Result<Self, LoadError> {
        let params = params(backend, spec, choice, threads).map_err(load_error)?;
        let projector = Projector::load(model, path, &params).map_err(|error| refused(path, error))?;
        Ok(Self { projector, kept: Mutex::default(), looking: Mutex::default() })
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        self.projector.path()
    }

    /// What loading it would take.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub fn need(backend: Backend, path: &Path, spec: &LoadSpec, choice: &Choice) -> Result<Bytes, LoadError> {
        let params = params(backend, spec, choice, 1).map_err(load_error)?;
        let bytes = Projector::memory_use(path, &params).map_err(|error| refused(path, error))?;
        Ok(bytes.into_iter().collect())
    }

    /// What stands in a prompt for an image, computed.
    ///
    /// # Errors
    /// What is wrong with the image.
    pub fn look(&self, file: &[u8]) -> Result<Arc<[Seen]>, RunnerError> {
        let digest: Digested = Sha256::digest(file).into();
        if let Some(known) = self.known(&digest) {
            return Ok(known);
        }
        let _looking = lock(&self.looking);
        if let Some(known) = self.known(&digest) {
            return Ok(known);
        }
        let seen: Arc<[Seen]> = self.see(file, true)?.into();
        let mut kept = lock(&self.kept);
        kept.push((digest, Arc::clone(&seen)));
        while kept.iter().map(|(_, seen)| bytes(seen)).sum::<usize>() > KEPT {
            kept.remove(0);
        }
        Ok(seen)
    }

    /// The same, with no numbers in it: as long as [`Sight::look`] makes it.
    ///
    /// # Errors
    /// What is wrong with the image.
    pub fn measure(&self, file: &[u8]) -> Result<Vec<Seen>, RunnerError> {
        self.see(file, false)
    }

    fn known(&self, digest: &Digested) -> Option<Arc<[Seen]>> {
        let mut kept = lock(&self.kept);
        let at = kept.iter().position(|(known, _)| known == digest)?;
        let entry = kept.remove(at);
        let seen = Arc::clone(&entry.1);
        kept.push(entry);
        Some(seen)
    }

    fn see(&self, file: &[u8], compute: bool) -> Result<Vec<Seen>, RunnerError> {
        let rgb = decode(file).map_err(RunnerError::BadRequest)?;
        let (width, height) = rgb.dimensions();
        let failed = |error: LlamaError| RunnerError::Failed(error.to_string());
        let image = self.projector.cut(&rgb, width, height).map_err(failed)?;
        let part = |part: &ImagePart| match part {
            ImagePart::Tokens(tokens) => Ok(Seen::Tokens(tokens.iter().map(|token| token.index()).collect())),
            ImagePart::Rows(rows) => {
                let vectors = if compute { image.encode(rows).map_err(failed)? } else { Vec::new() };
                let (places, whole) = (rows.places.clone(), self.projector.is_whole());
                Ok(Seen::Rows(Arc::new(ImageRows::new(rows.n, rows.n_positions, places, vectors, whole))))
            }
        };
        image.parts().iter().map(part).collect()
    }
}

fn bytes(seen: &[Seen]) -> usize {
    let part = |part: &Seen| match part {
        Seen::Tokens(tokens) => size_of_val(tokens.as_slice()),
        Seen::Rows(rows) => size_of_val(rows.vectors.as_slice()),
    };
    seen.iter().map(part).sum()
}

/// The first device of the model, or the CPU where it has none.
fn params(backend: Backend, spec: &LoadSpec, choice: &Choice, threads: u32) -> Result<ProjectorParams, LlamaError> {
    Ok(ProjectorParams {
        device: offload::devices(backend, choice)?.into_iter().next(),
        threads,
        flash_attention: match spec.serve.flash_attention {
            FlashAttention::Auto => llama::FlashAttention::Auto,
            FlashAttention::On => llama::FlashAttention::On,
            FlashAttention::Off => llama::FlashAttention::Off,
        },
    })
}

fn refused(path: &Path, error: LlamaError) -> LoadError {
    let why = error.to_string();
    let named = why.starts_with(&path.display().to_string());
    LoadError::Failed(if named { format!("mmproj {why}") } else { format!("mmproj {}: {why}", path.display()) })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Reads an image's file, and turns it as its camera was held.
fn decode(file: &[u8]) -> Result<RgbImage, String> {
    let unreadable = |error: &dyn std::fmt::Display| format!("an image cannot be read: {error}");
    let mut reader = ImageReader::new(Cursor::new(file)).with_guessed_format().map_err(|error| unreadable(&error))?;
    if reader.format().is_none() {
        return Err("an image is in no format that is read: PNG, JPEG, WebP, GIF and BMP are".into());
    }
    let mut limits = Limits::default();
    (limits.max_image_width, limits.max_image_height, limits.max_alloc) = (Some(LONGEST), Some(LONGEST), Some(DECODED));
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(|error| unreadable(&error))?;
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let mut image = DynamicImage::from_decoder(decoder).map_err(|error| unreadable(&error))?;
    image.apply_orientation(orientation);
    Ok(image.into_rgb8())
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use image::{DynamicImage, ImageFormat, Rgb, RgbImage};

    use super::decode;

    fn file(format: ImageFormat) -> Vec<u8> {
        let mut image = RgbImage::new(3, 2);
        image.put_pixel(2, 1, Rgb([255, 0, 0]));
        let mut file = Cursor::new(Vec::new());
        DynamicImage::from(image).write_to(&mut file, format).expect("memory");
        file.into_inner()
    }

    #[test]
    fn the_formats_that_clients_send() {
        for format in [ImageFormat::Png, ImageFormat::Gif, ImageFormat::Bmp, ImageFormat::WebP] {
            let image = decode(&file(format)).expect("an image");
            assert_eq!((image.dimensions(), image.get_pixel(2, 1).0), ((3, 2), [255, 0, 0]), "{format:?}");
        }
        assert_eq!(decode(&file(ImageFormat::Jpeg)).expect("an image").dimensions(), (3, 2));
    }

    #[test]
    fn what_is_no_image_says_so() {
        assert!(decode(b"hi").expect_err("no image").starts_with("an image is in no format"));
        let cut = &file(ImageFormat::Png)[..40];
        assert!(decode(cut).expect_err("cut off").starts_with("an image cannot be read: "));
    }

    /// A header that promises 65,000 times 65,000 pixels.
    #[test]
    fn an_image_that_would_fill_the_memory_is_refused() {
        let mut png = file(ImageFormat::Png);
        png[16..24].copy_from_slice(&[0, 0, 0xfd, 0xe8, 0, 0, 0xfd, 0xe8]);
        let crc = crc32fast::hash(&png[12..29]).to_be_bytes();
        png[29..33].copy_from_slice(&crc);
        let why = decode(&png).expect_err("too large");
        assert!(why.to_lowercase().contains("limit"), "{why}");
    }
}
