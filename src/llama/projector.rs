//! Projectors (`mmproj`): images to what a model reads in the place of tokens.

use std::path::{Path, PathBuf};
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, PoisonError};

use super::callback;
use super::device::{Device, text};
use super::error::{LlamaError, check, failure};
use super::model::{Model, c_path};
use super::vocab::Token;
use crate::gguf;

/// Side of an image that is cut for a trial, in pixels.
const TRIED: usize = 64;

/// How to load a [`Projector`].
#[derive(Clone, Debug, Default)]
pub struct ProjectorParams {
    /// `None` is the CPU.
    pub device: Option<Device>,
    pub threads: u32,
}

/// A projector, for one model, which it holds.
#[derive(Clone, Debug)]
pub struct Projector(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    raw: NonNull<llama_sys::mtmd_context>,
    path: PathBuf,
    /// One thread computes at a time.
    computing: Mutex<()>,
    model: Model,
}

// SAFETY: preparing an image reads the projector, from any thread; computing changes it, one thread at a time.
unsafe impl Send for Inner {}
// SAFETY: as above.
unsafe impl Sync for Inner {}

impl Drop for Inner {
    fn drop(&mut self) {
        // SAFETY: owned by us and not used after this; the model is dropped after it.
        unsafe { llama_sys::shim_projector_free(self.raw.as_ptr()) };
    }
}

/// An image as a projector cuts it.
#[derive(Debug)]
pub enum ImagePart {
    /// What the model expects around images.
    Tokens(Vec<Token>),
    Rows(ImageRows),
}

impl ImagePart {
    /// Tokens that it takes up.
    #[must_use]
    pub fn n_tokens(&self) -> usize {
        match self {
            Self::Tokens(tokens) => tokens.len(),
            Self::Rows(rows) => rows.n,
        }
    }
}

/// A stretch of rows, each of which the model reads as it reads a token.
#[derive(Debug)]
pub struct ImageRows {
    pub n: usize,
    /// Positions that they take up in a text.
    pub n_positions: usize,
    /// Where each of them is, counted from the first one's position: along the text, and down and across the image. Empty where
    /// they follow each other as tokens do.
    pub places: Vec<[u32; 4]>,
    index: usize,
}

/// An image that was cut; its rows are still to be computed.
#[derive(Debug)]
pub struct CutImage {
    raw: NonNull<llama_sys::shim_image>,
    parts: Vec<ImagePart>,
    projector: Projector,
}

// SAFETY: nothing changes it once it was made.
unsafe impl Send for CutImage {}

impl Drop for CutImage {
    fn drop(&mut self) {
        // SAFETY: owned by us and not used after this.
        unsafe { llama_sys::shim_image_free(self.raw.as_ptr()) };
    }
}

impl Projector {
    /// Checks the file against the model, then loads it. What it takes comes with it.
    ///
    /// # Errors
    /// A file that is no projector, or not one for this model's images.
    pub fn load(
        model: &Model,
        path: &Path,
        params: &ProjectorParams,
    ) -> Result<(Self, Vec<(String, u64)>), LlamaError> {
        let (memory, width) = measure(path, params)?;
        if width == 0 {
            return Err(LlamaError::SeesNothing(path.to_owned()));
        }
        if width != model.n_embd_inp() {
            return Err(LlamaError::ForeignProjector { path: path.to_owned(), width, expected: model.n_embd_inp() });
        }
        let c_path = c_path(path)?;
        let mut raw = std::ptr::null_mut();
        // SAFETY: the path is NUL-terminated, the model live and kept below; the device is one of the backend's.
        let (status, log) = callback::capture_log(|| unsafe {
            llama_sys::shim_projector_load(
                c_path.as_ptr(),
                model.raw(),
                params.handle(),
                i32::try_from(params.threads.max(1)).unwrap_or(1),
                &raw mut raw,
            )
        });
        let raw = NonNull::new(raw).ok_or_else(|| failure("loading the projector", status, log))?;
        let projector =
            Self(Arc::new(Inner { raw, path: path.to_owned(), computing: Mutex::new(()), model: model.clone() }));
        // Whether the vocabulary has what the projector puts around images.
        projector.cut(&[0x80; 3 * TRIED * TRIED], TRIED as u32, TRIED as u32)?;
        Ok((projector, memory))
    }

    /// Bytes that loading the file takes, by device. It takes as much for a moment.
    ///
    /// # Errors
    /// A file that is no projector, or too little memory.
    pub fn memory_use(path: &Path, params: &ProjectorParams) -> Result<Vec<(String, u64)>, LlamaError> {
        measure(path, params).map(|(memory, _)| memory)
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// Whether the rows of an image see those behind them, so that it must be computed in one pass.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        // SAFETY: a getter on a live projector.
        unsafe { llama_sys::shim_projector_is_whole(self.0.raw.as_ptr()) }
    }

    /// Resizes an image as the model was trained to see it, and cuts it where it is large. `rgb` has three bytes for each of
    /// `width` times `height` pixels.
    ///
    /// # Errors
    /// What llama.cpp says of it.
    ///
    /// # Panics
    /// Where `rgb` has another length.
    pub fn cut(&self, rgb: &[u8], width: u32, height: u32) -> Result<CutImage, LlamaError> {
        assert_eq!(rgb.len() as u64, u64::from(width) * u64::from(height) * 3, "three bytes a pixel");
        let mut raw = std::ptr::null_mut();
        // SAFETY: so many bytes are there, and are copied; preparing reads the projector only.
        let (status, log) = callback::capture_log(|| unsafe {
            llama_sys::shim_image_read(self.0.raw.as_ptr(), rgb.as_ptr(), width, height, &raw mut raw)
        });
        let raw = NonNull::new(raw).ok_or_else(|| failure("preparing an image", status, log))?;
        let mut image = CutImage { raw, parts: Vec::new(), projector: self.clone() };
        // SAFETY: a getter on a live image.
        let n = unsafe { llama_sys::shim_image_parts(image.raw.as_ptr()) };
        image.parts = (0..n).map(|index| image.part(index)).collect::<Result<_, _>>()?;
        Ok(image)
    }
}

/// What a projector takes by device, and how many floats a row of its images has; 0 where it sees none.
fn measure(path: &Path, params: &ProjectorParams) -> Result<(Vec<(String, u64)>, usize), LlamaError> {
    gguf::validate_projector(&gguf::Header::open(path)?)?;
    let c_path = c_path(path)?;
    let mut found = [llama_sys::shim_projector_memory::default(); 8];
    let (mut count, mut width) = (0, 0);
    // SAFETY: the path is NUL-terminated; writes at most as many entries as there are.
    let (status, log) = callback::try_out(true, || unsafe {
        llama_sys::shim_projector_measure(
            c_path.as_ptr(),
            params.handle(),
            found.as_mut_ptr(),
            found.len(),
            &raw mut count,
            &raw mut width,
        )
    });
    check("laying the projector out", status, log)?;
    let memory = found[..count].iter().map(|found| (text(found.device), found.bytes)).collect();
    Ok((memory, usize::try_from(width).unwrap_or(0)))
}

impl CutImage {
    #[must_use]
    pub fn parts(&self) -> &[ImagePart] {
        &self.parts
    }

    fn part(&self, index: usize) -> Result<ImagePart, LlamaError> {
        let mut part = llama_sys::shim_image_part::default();
        // SAFETY: a getter on a live image.
        let status = unsafe { llama_sys::shim_image_part_at(self.raw.as_ptr(), index, &raw mut part) };
        check("reading an image", status, String::new())?;
        if part.tokens.is_null() {
            let mut places = vec![[0; 4]; part.n];
            // SAFETY: there are four numbers for each of the `n` rows.
            let status =
                unsafe { llama_sys::shim_image_places(self.raw.as_ptr(), index, places.as_mut_ptr().cast(), part.n) };
            check("reading an image", status, String::new())?;
            if !self.projector.0.model.has_multi_rope() {
                places.clear();
            }
            return Ok(ImagePart::Rows(ImageRows { n: part.n, n_positions: part.n_positions, places, index }));
        }
        // SAFETY: the image keeps `n` tokens there.
        let tokens = unsafe { std::slice::from_raw_parts(part.tokens, part.n) };
        let known = |raw: &i32| Token::from_raw(*raw).ok_or(LlamaError::NoImageMarks);
        tokens.iter().map(known).collect::<Result<_, _>>().map(ImagePart::Tokens)
    }

    /// Computes the embeddings of one of its parts: for each row [`Model::n_embd_inp`] numbers. Waits for its turn.
    ///
    /// # Errors
    /// What llama.cpp says.
    pub fn encode(&self, rows: &ImageRows) -> Result<Vec<f32>, LlamaError> {
        let projector = &self.projector.0;
        let mut vectors = vec![0.0; rows.n * projector.model.n_embd_inp()];
        let _computing = projector.computing.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: both are live, nobody else computes, and the buffer has as many floats as llama.cpp has: the projector's width
        // was compared with the model's when it was loaded.
        let (status, log) = callback::capture_log(|| unsafe {
            llama_sys::shim_image_encode(
                projector.raw.as_ptr(),
                self.raw.as_ptr(),
                rows.index,
                vectors.as_mut_ptr(),
                vectors.len(),
            )
        });
        check("computing an image", status, log)?;
        Ok(vectors)
    }
}

impl ProjectorParams {
    fn handle(&self) -> llama_sys::ggml_backend_dev_t {
        self.device.as_ref().map_or(std::ptr::null_mut(), |device| device.handle)
    }
}
