// SPDX-License-Identifier: MIT OR Apache-2.0
//! `imageio-nbd upload`: an image becomes a disk.
//!
//! With `--resume`, the image is copied part by part. After each part, the server flushes, and a
//! [`Journal`] notes how much is on the disk for good. An upload that was interrupted goes on
//! there. What was written behind that is written again, which is safe in any order and any number
//! of times: whoever writes a place writes what the image has there, as long as the image stays as
//! it is. That is checked before each note.

mod advice;
mod part;

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, bail, ensure};
use block_device_traits::BlockDevice;
use engine_transfer::{Content, Direction, Ending, EngineSettings, Interrupted, Resumable, Source, Target};
use imageio_device::Device;
use imageio_stats::Output;

use self::advice::{advised, goes_on, is_finalized, is_hopeless};
use super::image::Image;
use super::image_files::{self, ImageFile};
use super::journal::{Begun, Destination, Journal, Plan};
use super::{Following, Report, Service, Stop, copy_disk, explained};
use crate::cli::copy::{Format, UploadOptions};
use crate::cli::{OF_UPLOAD, check_parameters};
use crate::listen::Address;

pub(crate) use self::advice::Advice;

/// Uploads the image. The new disk's id is printed.
pub(crate) fn run(options: &UploadOptions) -> Result<u8> {
    check_parameters(options.parameters(), OF_UPLOAD)?;
    if let (Some(state), Some(file)) = (&options.resume, options.file()) {
        refuse_as_state(state, file)?;
    }
    let (stop, _signals) = Stop::by_signals()?;
    let mut journal = options.resume.as_deref().map(Journal::open).transpose()?;
    let upload = match journal.as_ref().and_then(Journal::begun) {
        Some(begun) => Upload::resume(options, begun, Arc::clone(&stop))?,
        None => {
            let upload = Upload::begin(options, journal.as_mut(), Arc::clone(&stop));
            explained(upload, &stop, "nothing was begun")?
        }
    };
    let report = upload.report.clone();
    let disk = match journal {
        None => explained(upload.copy_whole(), &stop, "the upload was given up")?,
        Some(mut journal) => {
            // If all was copied before, this process doesn't read the image.
            let copied_before = journal.begun().filter(|_| journal.has_all() && options.file().is_some());
            let stale = copied_before.map(|begun| begun.files.clone());
            let uploaded = upload.copy_by_parts(&mut journal);
            let advice = match journal.begun() {
                Some(_) => goes_on(&journal),
                None => "the upload was given up".to_owned(),
            };
            let disk = explained(uploaded, &stop, &advice)?;
            let completed = journal.complete();
            stale.map_or(Ok(()), |files| refuse_other_image(&files, disk.as_deref()))?;
            let status = report.finish("upload completed", disk.as_deref());
            return completed.map(|()| status);
        }
    };
    Ok(report.finish("upload completed", disk.as_deref()))
}

/// Fails if the file of `--resume` is the image, by this or another name.
fn refuse_as_state(state: &Path, image: &Path) -> Result<()> {
    let absolute = |path| std::path::absolute(path).ok();
    let file = |path: &Path| path.metadata().map(|file| (file.dev(), file.ino())).ok();
    let is_image =
        absolute(state) == absolute(image) || file(state).is_some_and(|it| file(image) == Some(it));
    ensure!(
        !is_image,
        "--resume: {} is the image: name another file for the upload's state",
        state.display()
    );
    Ok(())
}

/// Fails if the image isn't any more the one that another process has copied.
fn refuse_other_image(files: &[ImageFile], disk: Option<&str>) -> Result<()> {
    match image_files::check(files) {
        Err(error) if error.is::<image_files::Changed>() => Err(error.context(format!(
            "disk {} is complete, with the image as it was before: upload the one that is there now anew",
            disk.unwrap_or_default()
        ))),
        // Nobody needs an image that is gone.
        _ => Ok(()),
    }
}

/// An upload and its destination.
struct Upload<'o> {
    options: &'o UploadOptions,
    image: Image,
    /// Its files, as they were at the beginning.
    files: Vec<ImageFile>,
    /// The disk had nothing but zeroes before.
    is_zero: bool,
    source: Source,
    /// The destination of the figures.
    output: Option<Output>,
    stop: Arc<Stop>,
    report: Report,
}

impl<'o> Upload<'o> {
    fn begin(options: &'o UploadOptions, journal: Option<&mut Journal>, stop: Arc<Stop>) -> Result<Self> {
        const NOTHING: &str = "--resume: nothing was noted of an upload yet: give its";
        let file = options.file().with_context(|| format!("{NOTHING} FILE"))?;
        let has_disk = options.disk.is_some() || options.storage_domain.is_some();
        ensure!(has_disk, "{NOTHING} --storage-domain or --disk");
        if journal.is_some() {
            part::check_name(file)?;
        }
        // Before all that is learned of the image: nobody may replace it between.
        let format = options.image_format.as_deref();
        let (files, no_file) = image_files::of_image(file, format)?;
        if let Some(no_file) = no_file.filter(|_| options.resume.is_some()) {
            return Err(no_file.into());
        }
        let image = Image::inspect(file, format)?;
        // To check a large image takes a while.
        stop.check()?;
        image_files::check(&files)?;
        let report = Report::new(options.common.output, "uploading image", image.size);
        report.begin("creating disk");
        let is_zero = is_zero(options, &image);
        let parameters = parameters(options, &image)?;
        let (mut source, output) = source(options, parameters.clone())?;
        if let Some(engine) = &mut source.engine {
            engine.exact_size = Some(image.size);
            if let (Some(journal), Target::NewDisk(new)) = (journal, &mut engine.target) {
                let plan =
                    Plan { image: image.path.clone(), engine: engine.credentials.engine_root()?, parameters };
                new.id = Some(journal.plan(plan)?);
            }
        }
        Ok(Self { options, is_zero, image, files, source, output, stop, report })
    }

    /// Goes on with what was begun.
    fn resume(options: &'o UploadOptions, begun: &Begun, stop: Arc<Stop>) -> Result<Self> {
        let Begun { image: path, format, size, is_zero, .. } = begun.clone();
        if let Some(file) = options.file() {
            let is_same = std::path::absolute(file).is_ok_and(|file| file == path);
            ensure!(
                is_same,
                "--resume: the upload was begun with {}: give that image, or another name with --resume",
                path.display()
            );
        }
        if options.image_format.as_ref().is_some_and(|now| *now != format) {
            bail!("--image-format: the upload was begun with an image of format {format}: leave it out");
        }
        if let Some(option) = destination(options).contradiction(&begun.destination) {
            bail!(
                "{option}: the upload was begun into disk {}: give another name with --resume to begin one",
                begun.interrupted().disk
            );
        }
        let image = Image { path, format, size, is_iso: false, has_backing_file: false };
        let report = Report::new(options.common.output, "uploading image", size);
        let interrupted = begun.interrupted();
        let (mut source, output) = source(options, vec![format!("disk={}", interrupted.disk)])?;
        if let Some(engine) = &mut source.engine {
            refuse_other_engine(engine, begun)?;
            engine.direction = Some(Direction::Upload);
            engine.target = Target::Interrupted(interrupted);
        }
        Ok(Self { options, image, files: begun.files.clone(), is_zero, source, output, stop, report })
    }

    /// Copies all of the image. The disk's id.
    fn copy_whole(self) -> Result<Option<String>> {
        let stop = Arc::clone(&self.stop);
        copy_disk(self.source.clone(), &stop, |device, _| {
            self.serve(device, 0, |disk| {
                for mut qemu_img in part::copy_all(&self.image, disk, self.is_zero)? {
                    stop.run(&mut qemu_img)?;
                }
                image_files::check(&self.files)
            })
        })
        .disk
    }

    /// Copies the image from where the journal says, and notes there how far it is. The disk's id.
    fn copy_by_parts(self, journal: &mut Journal) -> Result<Option<String>> {
        let begun = journal.begun().cloned();
        let (source, stop) = (self.source.clone(), Arc::clone(&self.stop));
        // The image is of no more interest then.
        if let Some(begun) = begun.as_ref().filter(|_| journal.has_all()) {
            let finalized = source.finalize_interrupted(stop.clock()).map_err(anyhow::Error::from);
            return advised(finalized, journal).map(|()| Some(begun.interrupted().disk));
        }
        let files = match &begun {
            Some(begun) => {
                advised(image_files::check(&begun.files), journal)?;
                begun.files.clone()
            }
            None => self.files.clone(),
        };
        let copied = copy_disk(source, &stop, |device, ending| {
            if begun.is_none() {
                journal.begin(self.begun(files.clone(), ending)?)?;
                ending.set_resumable(Resumable::OnceWritten);
            }
            self.serve(device, journal.flushed(), |disk| {
                self.copy_parts(device, disk, journal, &files).inspect_err(|error| {
                    if error.is::<image_files::Changed>() {
                        ending.set_resumable(Resumable::No);
                        journal.forget();
                    }
                })
            })
        });
        let is_lost = |error| is_hopeless(error) && !is_finalized(error);
        let is_given_up = |error| begun.is_none() && (copied.content == Content::Untouched || is_lost(error));
        // The disk that was made is removed then.
        if journal.begun().is_some() && copied.disk.as_ref().is_err_and(is_given_up) {
            journal.forget();
        }
        advised(copied.disk, journal)
    }

    fn begun(&self, files: Vec<ImageFile>, ending: &Ending) -> Result<Begun> {
        let (Some(transfer), Some(disk)) = (ending.transfer(), ending.disk()) else {
            bail!("bug: an upload has a transfer and a disk");
        };
        let interrupted = Interrupted::new(transfer, disk, self.options.disk.is_none());
        let engine =
            self.source.engine.as_ref().map(|engine| engine.credentials.engine_root()).transpose()?;
        let Image { path, format, size, .. } = self.image.clone();
        let destination = destination(self.options);
        Ok(Begun::new((path, format, size), files, self.is_zero, destination, engine, interrupted))
    }

    fn copy_parts(
        &self,
        device: &Device,
        disk: &Address,
        journal: &mut Journal,
        files: &[ImageFile],
    ) -> Result<()> {
        for part in part::parts(journal.flushed(), self.image.size) {
            let end = part.end;
            self.stop.run(&mut part::copy(&self.image, disk, self.is_zero, part)?)?;
            device.flush().map_err(|error| anyhow!("the disk may be incomplete: {error}"))?;
            image_files::check(files)?;
            journal.note(end)?;
        }
        Ok(())
    }

    /// Serves the disk while it is used, all before this offset of which is there.
    fn serve(
        &self,
        device: &Arc<Device>,
        before: u64,
        use_it: impl FnOnce(&Address) -> Result<()>,
    ) -> Result<()> {
        let service = Service { label: None, stop: &self.stop, output: self.output.as_ref() };
        let follow = |observer: &_| Following::start(&self.report, before, observer);
        service.serve(device, follow, use_it)
    }
}

/// Engines know nothing of each other's transfers: what another one says of this transfer is
/// nothing to go by.
fn refuse_other_engine(engine: &EngineSettings, begun: &Begun) -> Result<()> {
    let now = engine.credentials.engine_root()?;
    match begun.engine.as_ref().filter(|before| **before != now) {
        Some(before) => bail!(
            "--resume: the upload was begun at engine {before}, and this is {now}: give that engine, or another name with --resume"
        ),
        None => Ok(()),
    }
}

fn destination(options: &UploadOptions) -> Destination {
    Destination {
        disk: options.disk.clone(),
        storage_domain: options.storage_domain.clone(),
        disk_name: options.disk_name.clone(),
    }
}

/// Finds the destination of the data by these parameters and the user's, and that of the figures.
fn source(options: &UploadOptions, parameters: Vec<String>) -> Result<(Source, Option<Output>)> {
    super::source(options.common.config.as_deref(), options.parameters(), parameters)
}

fn format(options: &UploadOptions, image: &Image) -> Format {
    options.format.unwrap_or(if image.is_iso { Format::Raw } else { Format::Qcow2 })
}

fn is_sparse(options: &UploadOptions, image: &Image) -> bool {
    !options.preallocated && !image.is_iso
}

/// Returns true if the disk reads as zeroes before anything is written: it is made now, and its
/// storage is no block device that is used as it is. That isn't known of a raw disk, as block
/// storage has no sparse ones.
fn is_zero(options: &UploadOptions, image: &Image) -> bool {
    options.disk.is_none() && format(options, image) == Format::Qcow2 && is_sparse(options, image)
}

/// Returns the name of a disk that gets none by an option: that of the image's file.
fn default_name(image: &Image) -> Result<String> {
    let name = imageio_config::name(&image.name());
    name.map_err(|reason| {
        anyhow!("--disk-name is missing: the name of the image's file can't be that of the disk: {reason}")
    })
}

/// Returns the parameters for the engine.
fn parameters(options: &UploadOptions, image: &Image) -> Result<Vec<String>> {
    if let Some(disk) = &options.disk {
        return Ok(vec![format!("disk={disk}")]);
    }
    let name = options.disk_name.clone().map_or_else(|| default_name(image), Ok)?;
    let mut parameters = vec![
        format!("new-disk={name}"),
        format!("storage-domain={}", options.storage_domain.as_deref().unwrap_or_default()),
        format!("size={}", image.size),
    ];
    let is_sparse = is_sparse(options, image);
    match format(options, image) {
        Format::Qcow2 => {
            parameters.push("backup=incremental".to_owned());
            if is_sparse {
                parameters.push(format!("initial-size={}", image.measure()?));
            }
        }
        Format::Raw => parameters.push("format=raw".to_owned()),
    }
    if !is_sparse {
        parameters.push("sparse=false".to_owned());
    }
    if image.is_iso {
        parameters.push("content-type=iso".to_owned());
    }
    parameters.extend(options.description.iter().map(|text| format!("description={text}")));
    Ok(parameters)
}
