//! Images to what the engine computes: decoded here, cut and computed by the model's projector, and kept for a while, as a
//! conversation sends its images again with each turn.

use std::io::Cursor;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageReader, Limits, Rgb, RgbImage, RgbaImage};
use metrics::{Counter, Histogram, Unit, counter, describe_counter, describe_histogram, histogram};
use sha2::{Digest, Sha256};

use super::Waits;
use super::error::{LoadError, RunnerError};
use super::local::load_error;
use super::offload;
use crate::engine::{ImageRows, TokenId};
use crate::llama::{
    Backend, CutImage, ImagePart, ImageRows as PartRows, LlamaError, Model, Projector, ProjectorParams,
};
use crate::placement::{Bytes, Choice};

/// Longest side that is decoded, in pixels.
const LONGEST: u32 = 16_384;
/// Most pixels.
const PIXELS: u64 = 64 << 20;
/// Bytes that a file's own form of them may take.
const DECODED: u64 = 512 << 20;
/// Longest side for a shortest one of 1. Beyond, projectors blow images up, or count past what they have room for.
const RATIO: u32 = 200;
/// Bytes of images that are kept, at least and at most; between them as many as a context can hold.
const KEPT: std::ops::RangeInclusive<usize> = 128 << 20..=1 << 30;

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
    kept: Mutex<Kept>,
    /// One image at a time: whoever sends the same one meanwhile finds it.
    looking: Mutex<()>,
    computed: Counter,
    took: Histogram,
    abandoned: Counter,
}

/// What was seen, the latest last, of at most `most` bytes.
#[derive(Debug)]
struct Kept {
    seen: Vec<(Digested, Arc<[Seen]>)>,
    most: usize,
}

impl Kept {
    fn find(&mut self, digest: &Digested) -> Option<Arc<[Seen]>> {
        let at = self.seen.iter().position(|(known, _)| known == digest)?;
        self.seen[at..].rotate_left(1);
        self.seen.last().map(|(_, seen)| Arc::clone(seen))
    }

    fn add(&mut self, digest: Digested, seen: Arc<[Seen]>) {
        self.seen.push((digest, seen));
        let bytes = |seen: &[Seen]| seen.iter().map(Seen::bytes).sum::<usize>();
        let mut held: usize = self.seen.iter().map(|(_, seen)| bytes(seen)).sum();
        while held > self.most {
            held -= bytes(&self.seen.remove(0).1);
        }
    }
}

/// An image that is cut, so that it is known how long it is.
#[derive(Debug)]
pub(super) enum Cut {
    Known(Arc<[Seen]>),
    New { digest: Digested, image: CutImage },
}

impl Cut {
    /// Tokens that it takes up.
    pub fn n_tokens(&self) -> usize {
        match self {
            Self::Known(seen) => seen.iter().map(Seen::n_tokens).sum(),
            Self::New { image, .. } => image.parts().iter().map(ImagePart::n_tokens).sum(),
        }
    }

    /// Rows of its longest stretch. None where it was computed before.
    pub fn longest(&self) -> usize {
        let Self::New { image, .. } = self else { return 0 };
        let rows = image.parts().iter().filter(|part| matches!(part, ImagePart::Rows(_)));
        rows.map(ImagePart::n_tokens).max().unwrap_or(0)
    }
}

impl Seen {
    fn n_tokens(&self) -> usize {
        match self {
            Self::Tokens(tokens) => tokens.len(),
            Self::Rows(rows) => rows.n,
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Tokens(tokens) => size_of_val(tokens.as_slice()),
            Self::Rows(rows) => size_of_val(rows.vectors.as_slice()),
        }
    }
}

pub(super) fn describe_metrics() {
    describe_counter!("shimmy_images_total", "Images that a projector computed");
    describe_counter!("shimmy_abandoned_images_total", "Requests whose client left before their images were computed");
    describe_histogram!("shimmy_image_seconds", Unit::Seconds, "What a projector took for an image");
}

impl Sight {
    /// Loads a projector for `model`, whose place is `choice`, and says what it takes. Its context is to hold `n_ctx` tokens; in
    /// metrics it is called `label`.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub fn load(
        backend: Backend,
        path: &Path,
        model: &Model,
        choice: &Choice,
        threads: u32,
        n_ctx: u32,
        label: &str,
    ) -> Result<(Self, Bytes), LoadError> {
        let params = params(backend, choice, threads).map_err(load_error)?;
        let (projector, memory) = Projector::load(model, path, &params).map_err(|error| refused(path, error))?;
        let context = (n_ctx as usize).saturating_mul(model.n_embd_inp()).saturating_mul(size_of::<f32>());
        let kept = Kept { seen: Vec::new(), most: context.clamp(*KEPT.start(), *KEPT.end()) };
        let label = || label.to_owned();
        let sight = Self {
            projector,
            kept: Mutex::new(kept),
            looking: Mutex::default(),
            computed: counter!("shimmy_images_total", "model" => label()),
            took: histogram!("shimmy_image_seconds", "model" => label()),
            abandoned: counter!("shimmy_abandoned_images_total", "model" => label()),
        };
        Ok((sight, memory.into_iter().collect()))
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        self.projector.path()
    }

    /// Whether all of an image is computed at once.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.projector.is_whole()
    }

    /// What loading it would take.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub fn need(backend: Backend, path: &Path, choice: &Choice) -> Result<Bytes, LoadError> {
        let params = params(backend, choice, 1).map_err(load_error)?;
        let bytes = Projector::memory_use(path, &params).map_err(|error| refused(path, error))?;
        Ok(bytes.into_iter().collect())
    }

    /// Decodes and cuts an image, unless nobody `waits` for it by the time that it is its turn.
    ///
    /// # Errors
    /// What is wrong with it, or that it was given up.
    pub fn cut(&self, file: &[u8], waits: Waits<'_>) -> Result<Cut, RunnerError> {
        let digest: Digested = Sha256::digest(file).into();
        if let Some(known) = lock(&self.kept).find(&digest) {
            return Ok(Cut::Known(known));
        }
        let _looking = lock(&self.looking);
        if !waits() {
            return Err(self.abandoned());
        }
        if let Some(known) = lock(&self.kept).find(&digest) {
            return Ok(Cut::Known(known));
        }
        let rgb = decode(file).map_err(RunnerError::BadRequest)?;
        let (width, height) = rgb.dimensions();
        let image = self.projector.cut(&rgb, width, height).map_err(|error| match error {
            LlamaError::NoImageMarks => RunnerError::Failed(error.to_string()),
            error => RunnerError::BadRequest(error.to_string()),
        })?;
        Ok(Cut::New { digest, image })
    }

    /// What stands in a prompt for an image, computed, unless nobody `waits` for the next part of it.
    ///
    /// # Errors
    /// What llama.cpp says, or that it was given up.
    pub fn compute(&self, cut: Cut, waits: Waits<'_>) -> Result<Arc<[Seen]>, RunnerError> {
        let (digest, image) = match cut {
            Cut::Known(seen) => return Ok(seen),
            Cut::New { digest, image } => (digest, image),
        };
        let _looking = lock(&self.looking);
        if let Some(known) = lock(&self.kept).find(&digest) {
            return Ok(known);
        }
        let begun = Instant::now();
        let vectors = |rows: &PartRows| {
            if !waits() {
                return Err(self.abandoned());
            }
            image.encode(rows).map_err(|error| RunnerError::Failed(error.to_string()))
        };
        let seen: Arc<[Seen]> = self.see(&image, vectors)?.into();
        self.computed.increment(1);
        self.took.record(begun.elapsed());
        lock(&self.kept).add(digest, Arc::clone(&seen));
        Ok(seen)
    }

    /// Counts a request whose client left.
    fn abandoned(&self) -> RunnerError {
        self.abandoned.increment(1);
        RunnerError::Abandoned
    }

    /// The same, with no numbers in it: as long as [`Sight::compute`] makes it.
    ///
    /// # Errors
    /// What llama.cpp says.
    pub fn outline(&self, cut: Cut) -> Result<Arc<[Seen]>, RunnerError> {
        match cut {
            Cut::Known(seen) => Ok(seen),
            Cut::New { image, .. } => Ok(self.see(&image, |_| Ok(Vec::new()))?.into()),
        }
    }

    fn see(
        &self,
        image: &CutImage,
        vectors: impl Fn(&PartRows) -> Result<Vec<f32>, RunnerError>,
    ) -> Result<Vec<Seen>, RunnerError> {
        let part = |part: &ImagePart| match part {
            ImagePart::Tokens(tokens) => Ok(Seen::Tokens(tokens.iter().map(|token| token.index()).collect())),
            ImagePart::Rows(rows) => {
                let (places, vectors) = (rows.places.clone(), vectors(rows)?);
                Ok(Seen::Rows(Arc::new(ImageRows::new(rows.n, rows.n_positions, places, vectors, self.is_whole()))))
            }
        };
        image.parts().iter().map(part).collect()
    }
}

/// The first device of the model, or the CPU where it has none.
fn params(backend: Backend, choice: &Choice, threads: u32) -> Result<ProjectorParams, LlamaError> {
    Ok(ProjectorParams { device: offload::devices(backend, choice)?.into_iter().next(), threads })
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
    let unreadable = |error: &dyn std::fmt::Display| format!("it cannot be read: {error}");
    let mut reader = ImageReader::new(Cursor::new(file)).with_guessed_format().map_err(|error| unreadable(&error))?;
    if reader.format().is_none() {
        return Err("it is in no format that is read: PNG, JPEG, WebP, GIF and BMP are".into());
    }
    let mut limits = Limits::default();
    limits.max_alloc = Some(DECODED);
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(|error| unreadable(&error))?;
    let (width, height) = decoder.dimensions();
    if width == 0 || height == 0 {
        return Err("it has no pixels".into());
    }
    let (long, short) = (width.max(height), width.min(height));
    if long / short > RATIO {
        return Err(format!("{width} times {height} pixels are too narrow: 1 to {RATIO} at most"));
    }
    if long > LONGEST || u64::from(width) * u64::from(height) > PIXELS || decoder.total_bytes() > DECODED {
        let most = PIXELS >> 20;
        return Err(format!("{width} times {height} pixels are too many: {most} million at most, {LONGEST} on a side"));
    }
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let mut image = DynamicImage::from_decoder(decoder).map_err(|error| unreadable(&error))?;
    image.apply_orientation(orientation);
    Ok(if image.color().has_alpha() { on_white(&image.into_rgba8()) } else { image.into_rgb8() })
}

/// What shows through is white, as on the pages that most such images are made for.
fn on_white(image: &RgbaImage) -> RgbImage {
    RgbImage::from_fn(image.width(), image.height(), |x, y| {
        let [r, g, b, alpha] = image.get_pixel(x, y).0.map(u32::from);
        #[allow(clippy::cast_possible_truncation)] // A mean of two bytes.
        let mix = |colour: u32| ((colour * alpha + 255 * (255 - alpha) + 127) / 255) as u8;
        Rgb([mix(r), mix(g), mix(b)])
    })
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;
    use std::sync::Arc;

    use image::{DynamicImage, ImageFormat, Rgb, RgbImage};

    use super::{Kept, Seen, decode};
    use crate::engine::ImageRows;

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
    fn an_image_is_turned_as_its_camera_was_held() {
        let mut jpeg = file(ImageFormat::Jpeg);
        // EXIF's block of one entry: the camera lay on its side.
        let entry = [0x12, 1, 3, 0, 1, 0, 0, 0, 6, 0, 0, 0];
        let exif = [&b"\xff\xe1\x00\x22Exif\0\0II*\0\x08\0\0\0\x01\0"[..], &entry, &[0; 4]].concat();
        jpeg.splice(2..2, exif);
        assert_eq!(decode(&jpeg).expect("an image").dimensions(), (2, 3));
    }

    #[test]
    fn what_was_seen_longest_ago_goes_first() {
        let seen = || Arc::from([Seen::Rows(Arc::new(ImageRows::new(1, 1, Vec::new(), vec![0.0; 25], false)))]);
        let mut kept = Kept { seen: Vec::new(), most: 250 };
        kept.add([1; 32], seen());
        kept.add([2; 32], seen());
        assert!(kept.find(&[1; 32]).is_some());
        kept.add([3; 32], seen());
        assert_eq!([1, 2, 3].map(|image| kept.find(&[image; 32]).is_some()), [true, false, true]);
    }

    #[test]
    fn what_is_no_image_says_so() {
        assert!(decode(b"hi").expect_err("no image").starts_with("it is in no format"));
        let cut = &file(ImageFormat::Png)[..40];
        assert!(decode(cut).expect_err("cut off").starts_with("it cannot be read: "));
    }

    /// A header that promises 65,000 times 65,000 pixels.
    #[test]
    fn an_image_that_would_fill_the_memory_is_refused() {
        let mut png = file(ImageFormat::Png);
        png[16..24].copy_from_slice(&[0, 0, 0xfd, 0xe8, 0, 0, 0xfd, 0xe8]);
        let crc = crc32fast::hash(&png[12..29]).to_be_bytes();
        png[29..33].copy_from_slice(&crc);
        let why = decode(&png).expect_err("too large");
        assert_eq!(why, "65000 times 65000 pixels are too many: 64 million at most, 16384 on a side");
        // As large as a side may be, in a file that says no more than that.
        let mut gif = file(ImageFormat::Gif);
        gif[6..10].copy_from_slice(&[0, 0x40, 0, 0x40]);
        let why = decode(&gif).expect_err("too large");
        assert_eq!(why, "16384 times 16384 pixels are too many: 64 million at most, 16384 on a side");
        let mut sliver = Cursor::new(Vec::new());
        DynamicImage::from(RgbImage::new(1, 201)).write_to(&mut sliver, ImageFormat::Png).expect("memory");
        let why = decode(&sliver.into_inner()).expect_err("too narrow");
        assert_eq!(why, "1 times 201 pixels are too narrow: 1 to 200 at most");
    }

    #[test]
    fn what_shows_through_is_white() {
        let mut image = image::RgbaImage::new(2, 1);
        image.put_pixel(0, 0, image::Rgba([255, 0, 0, 0]));
        image.put_pixel(1, 0, image::Rgba([0, 0, 0, 128]));
        let mut png = Cursor::new(Vec::new());
        DynamicImage::from(image).write_to(&mut png, ImageFormat::Png).expect("memory");
        let seen = decode(&png.into_inner()).expect("an image");
        assert_eq!([seen.get_pixel(0, 0).0, seen.get_pixel(1, 0).0], [[255; 3], [127; 3]]);
    }
}
