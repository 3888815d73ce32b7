// SPDX-License-Identifier: MIT OR Apache-2.0
//! `imageio-nbd backup`: from the engine into the directory.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use anyhow::{Context, Result, anyhow, ensure};
use backup_directory::{
    BackupMode, BackupRecord, Decision, DiskBackup, DiskPlan, NewBackup, Plan, Policy, Reason, Vm, Writer,
    plan,
};
use engine_transfer::Target;
use jiff::Timestamp;
use ovirt_engine_client::Engine;

use super::in_engine::{self, EngineBackup};
use super::{Site, copy};
use crate::cli::BackupOptions;
use crate::copy::{Made, Stop, StopClock, close_after, explained, is_consequence};

/// The file of the VM's configuration: what the engine tells of it, with its OVF inside.
const CONFIGURATION: &str = "vm.json";

/// Everything, up to the exit status.
pub(crate) fn run(options: &BackupOptions) -> Result<u8> {
    copy::check_tools()?;
    let (stop, _signals) = Stop::by_signals()?;
    let mut site = Site::new(&options.engine, Arc::clone(&stop), "backing up")?;
    let clock = stop.clock();
    let engine = site.credentials.engine(Arc::clone(&clock) as _)?;
    let saved = save(options, &mut site, &engine, &clock);
    engine.log_out();
    explained(saved, &stop, "the directory has the backups that it had before")
}

/// Adds a backup, and tells its id. Returns the exit status.
fn save(options: &BackupOptions, site: &mut Site, engine: &Engine, clock: &Arc<StopClock>) -> Result<u8> {
    let vm = engine.find_vm(&options.vm)?;
    let mut writer = Writer::open(&options.directory, Vm { id: vm.id.clone(), name: vm.name })?;
    clean_up(engine, &vm.id, &mut writer)?;
    let disks = in_engine::disks(engine, &vm.id)?;
    let checkpoints: Vec<_> =
        engine.checkpoints(&vm.id)?.into_iter().map(|checkpoint| checkpoint.id).collect();
    let plan = plan(Some(writer.manifest()), &checkpoints, &disks, options.policy())?;
    if let Some(newest) = &plan.passed_over {
        log::warn!("the engine has no checkpoint of the backup {newest}: an earlier backup is continued");
    }
    site.is_about(plan.disks.iter().map(|plan| &plan.disk));
    check_bases(options, site, &writer, &plan)?;
    let new = writer.begin(Timestamp::now())?;
    let id = new.id().to_owned();
    let record = back_up(options, site, engine, clock, &vm.id, plan, &new)?;
    let told = summary(&record);
    new.commit(record)?;
    Ok(site.tell_made("backup completed", Made::Backup(&id), &format!("{id}{told}")))
}

/// Tells what an interrupted backup has left, and ends it in the engine. One that can't be ended
/// now is left to the next time.
fn clean_up(engine: &Engine, vm: &str, writer: &mut Writer) -> Result<()> {
    for name in writer.removed() {
        log::warn!("{name} of an interrupted backup was removed");
    }
    for id in writer.abandoned() {
        match in_engine::end_abandoned(engine, vm, &id) {
            Ok(()) => {
                log::warn!("backup {id}, which was interrupted, has ended in the engine");
                writer.forget_abandoned(&id)?;
            }
            Err(error) => log::warn!(
                "{}: backup {id}, which was interrupted, may still be under way: see it in the engine",
                imageio_config::without_advice(&error)
            ),
        }
    }
    Ok(())
}

/// Has the engine begin the backup as it is planned; or as a full one, if the engine refuses an
/// incremental one and no disk has to be backed up incrementally.
fn begin<'e, 'w>(
    engine: &'e Engine,
    clock: &'e Arc<StopClock>,
    vm: &str,
    plan: Plan,
    new: &'e NewBackup<'w>,
) -> Result<(EngineBackup<'e, 'w>, Plan)> {
    let begin = |plan: &Plan| {
        let disks = plan.disks.iter().map(|plan| plan.disk.id.clone()).collect();
        EngineBackup::begin(engine, clock, new, vm, disks, plan.from_checkpoint_id.clone())
    };
    let error = match begin(&plan) {
        Ok(backup) => return Ok((backup, plan)),
        Err(error) => error,
    };
    let full = plan.without_increments().filter(|_| in_engine::is_refusal(&error));
    let Some(full) = full else { return Err(error) };
    let backup = begin(&full)?;
    // If it had refused this one as well, only that would be worth telling.
    log::warn!("{}: a full backup is made in place of an incremental one", crate::one_line(&error));
    Ok((backup, full))
}

fn back_up(
    options: &BackupOptions,
    site: &Site,
    engine: &Engine,
    clock: &Arc<StopClock>,
    vm: &str,
    plan: Plan,
    new: &NewBackup<'_>,
) -> Result<BackupRecord> {
    let (backup, plan) = begin(engine, clock, vm, plan, new)?;
    let plan = plan.settle(&backup.modes()?)?;
    let from_checkpoint_id = plan.from_checkpoint_id.clone();
    plan.disks.iter().for_each(tell_reason);
    let configuration = serde_json::to_vec_pretty(&engine.vm_configuration(vm)?)?;
    let vm_configuration = Some(new.write_configuration(CONFIGURATION, &configuration)?);
    let (jobs, stop) = (usize::from(options.jobs), &*site.stop);
    let _line = site.follow()?;
    for_all(&plan.disks, jobs, stop, |plan| copy_disk(site, &backup.id, plan, new))?;
    let (engine_backup_id, to_checkpoint_id) = (backup.id.clone(), backup.to_checkpoint_id.clone());
    // The VM needs more of its storage as long as the backup is under way.
    backup.end()?;
    let disks = for_all(&plan.disks, jobs, stop, |plan| with_checksum(site, plan, new))?;
    Ok(BackupRecord { engine_backup_id, from_checkpoint_id, to_checkpoint_id, vm_configuration, disks })
}

/// Checks that the images to be continued are there, and hold what was backed up: damage would
/// become a part of the new backup, and of its checksum.
fn check_bases(options: &BackupOptions, site: &Site, writer: &Writer, plan: &Plan) -> Result<()> {
    const ADVICE: &str =
        "nothing can be added to it: make a full backup (--full), and see imageio-nbd verify";
    let _line = site.follow()?;
    let checked = for_all(&plan.disks, usize::from(options.jobs), &site.stop, |plan| {
        let base = backing_file(plan).and_then(|file| writer.manifest().disk_of_file(file));
        let Some(base) = base else { return Ok(()) };
        let image = writer.image(base).context(ADVICE)?;
        match copy::is_as_backed_up(base, &image, site.task(&plan.disk.name)) {
            Ok(true) => Ok(()),
            Ok(false) => Err(anyhow!("{} isn't what was backed up: {ADVICE}", image.display())),
            Err(error) => {
                site.stop.check()?;
                Err(error.context(format!("{}: {ADVICE}", image.display())))
            }
        }
    });
    checked.map(drop)
}

/// Why a disk isn't backed up incrementally, if that is no matter of course.
fn tell_reason(plan: &DiskPlan) {
    match &plan.decision {
        Decision::Full(Reason::AskedFor | Reason::FirstBackup) | Decision::Incremental { .. } => {}
        Decision::Full(reason) => log::warn!("{:?} is backed up as a whole: {reason}", plan.disk.name),
    }
}

/// Does something with each disk, with so many at a time. The first error stops the others.
fn for_all<T: Send>(
    plans: &[DiskPlan],
    jobs: usize,
    stop: &Stop,
    act: impl Fn(&DiskPlan) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    let (next, outcomes) = (Mutex::new(plans.iter().enumerate()), Mutex::new(Vec::new()));
    let work = || {
        while let Some((at, plan)) = next.lock().unwrap_or_else(PoisonError::into_inner).next() {
            let outcome =
                stop.check().and_then(|()| act(plan)).with_context(|| format!("disk {:?}", plan.disk.name));
            if outcome.is_err() {
                stop.stop();
            }
            outcomes.lock().unwrap_or_else(PoisonError::into_inner).push((at, outcome));
        }
    };
    thread::scope(|scope| {
        for _ in 1..jobs.min(plans.len()) {
            // Those that are there do all of the work.
            if let Err(error) = thread::Builder::new().name("disk".into()).spawn_scoped(scope, work) {
                log::warn!("fewer disks are copied at a time: cannot start a thread: {error}");
                break;
            }
        }
        work();
    });
    in_order(outcomes.into_inner().unwrap_or_else(PoisonError::into_inner))
}

/// Returns the outcome of each, by its number; or the error that has stopped the others.
fn in_order<T>(outcomes: Vec<(usize, Result<T>)>) -> Result<Vec<T>> {
    let (mut done, mut reason) = (Vec::new(), None);
    for (at, outcome) in outcomes {
        match outcome {
            Ok(outcome) => done.push((at, outcome)),
            Err(error) if reason.as_ref().is_none_or(is_consequence) => reason = Some(error),
            Err(_) => {}
        }
    }
    done.sort_by_key(|(at, _)| *at);
    reason.map_or_else(|| Ok(done.into_iter().map(|(_, outcome)| outcome).collect()), Err)
}

/// The file that a disk's image is an increment to.
fn backing_file(plan: &DiskPlan) -> Option<&str> {
    match &plan.decision {
        Decision::Full(_) => None,
        Decision::Incremental { backing_file } => Some(backing_file),
    }
}

fn copy_disk(site: &Site, backup: &str, plan: &DiskPlan, new: &NewBackup<'_>) -> Result<()> {
    let (disk, backing_file) = (&plan.disk, backing_file(plan));
    let image = new.image(&disk.id, backing_file)?;
    let settings = site.settings.clone().with(|settings| {
        settings.read_only = true;
        settings.clean_as_holes = backing_file.is_some();
    });
    let target = Target::Backup { disk: disk.id.clone(), backup: backup.to_owned() };
    site.with_disk(settings, target, |transfer, _| {
        let (size, expected) = (transfer.size(), disk.provisioned_size);
        ensure!(
            size == expected,
            "the transfer has {size} bytes, and the disk {expected}: begin the backup anew if the disk was extended just now"
        );
        let device = Arc::new(transfer.start()?);
        close_after(copy::read(&device, &image, site.task(&disk.name)), &device)
    })
}

/// Computes the checksum of a complete image, and returns what the manifest says of the image.
fn with_checksum(site: &Site, plan: &DiskPlan, new: &NewBackup<'_>) -> Result<DiskBackup> {
    let (disk, backing_file) = (plan.disk.clone(), backing_file(plan).map(str::to_owned));
    let backup_mode = if backing_file.is_some() { BackupMode::Incremental } else { BackupMode::Full };
    let image = new.image(&disk.id, backing_file.as_deref())?;
    let checksum = copy::checksum(&image.path, disk.provisioned_size, site.task(&disk.name))?;
    Ok(DiskBackup { disk, backup_mode, file: image.file, backing_file, checksum })
}

/// Tells what was backed up, in words behind the backup's id.
fn summary(record: &BackupRecord) -> String {
    let tell = |disk: &DiskBackup| {
        let mode = match disk.backup_mode {
            BackupMode::Full => "full",
            BackupMode::Incremental => "incremental",
        };
        format!("\n  {}  {mode}  {:?}", disk.disk.id, disk.disk.name)
    };
    record.disks.iter().map(tell).collect()
}

impl BackupOptions {
    fn policy(&self) -> Policy {
        match (self.full, self.incremental) {
            (true, _) => Policy::Full,
            (false, true) => Policy::Incremental,
            (false, false) => Policy::IncrementalWherePossible,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_is_told_and_not_what_came_of_it() {
        let stop = Stop::default();
        stop.stop();
        let stopped = || stop.check().unwrap_err();
        let outcomes = vec![
            (1, Err(stopped())),
            (0, Err(anyhow::anyhow!("the reason"))),
            (2, Err(stopped())),
            (3, Ok(())),
        ];
        assert_eq!(in_order(outcomes).unwrap_err().to_string(), "the reason");
        assert_eq!(in_order(vec![(0, Err::<(), _>(stopped()))]).unwrap_err().to_string(), "it was stopped");
    }

    #[test]
    fn what_has_come_of_each_is_in_order() {
        assert_eq!(in_order(vec![(2, Ok('c')), (0, Ok('a')), (1, Ok('b'))]).unwrap(), ['a', 'b', 'c']);
    }
}
