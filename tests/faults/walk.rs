//! The walk: a life on a disk that fails, tears or forgets at each operation in turn, and what is
//! found after each.
//!
//! A [`Life`] says what is done with the disk and what must hold of what is left; everything else
//! is the same for all.

use super::{KEEPS, faults_for};
use lonnet::base::disk::{Fault, FaultyDisk, Keep};

/// What must hold was broken.
pub type Broken = String;

/// A part of a life.
pub type Step<L> = fn(&mut L) -> Result<(), Broken>;

/// How a life puts something between itself and the disk.
pub type Wrap<L> = fn(FaultyDisk) -> <L as Life>::Disk;

/// What uses a disk, and remembers what it was told.
pub trait Life: Sized {
    /// The disk as it is used: the faulty one, or something around it.
    type Disk;
    /// What whoever uses it saw; it goes on with what is left.
    type Story: Clone + Default;

    /// A life has at least this many operations; fewer would mean that the walk misses some.
    const LEAST_OPERATIONS: usize;
    /// It has at least so many renames among them.
    const LEAST_RENAMES: usize;
    /// What may fail in an operation after one that has failed.
    const SECOND: &[Fault];

    /// A disk on which nothing has happened.
    fn new_disk() -> FaultyDisk;
    /// Begins, or goes on after `story`.
    fn new(disk: FaultyDisk, wrap: Wrap<Self>, story: Self::Story) -> Self;
    /// Its parts, in order.
    fn steps() -> Vec<Step<Self>>;
    /// The disk below it.
    fn disk(&self) -> &FaultyDisk;
    /// Its story.
    fn story(&self) -> &Self::Story;
    /// How often it was told that something failed.
    fn refused(&self) -> usize;
    /// Opens what is left and checks all promises, then that it works as on its first day.
    ///
    /// # Errors
    /// What does not hold.
    fn check(&mut self, repeats_allowed: bool) -> Result<(), Broken>;
    /// What is only found where a process goes on, and then the machine dies.
    ///
    /// # Errors
    /// What does not hold.
    fn go_on_and_crash(&mut self) -> Result<(), Broken> {
        Ok(())
    }
    /// What a life without faults leaves behind.
    fn look_at(_whole: &FaultyDisk) {}
}

/// Lives until the end, or the machine's.
fn live<L: Life>(life: &mut L) -> Result<(), Broken> {
    for step in L::steps() {
        step(life)?;
        if life.disk().is_dead() {
            break;
        }
    }
    Ok(())
}

/// One life with these faults, then every way in which the machine can forget; how many ends were
/// checked.
fn run<L: Life>(wrap: Wrap<L>, faults: &[(usize, Fault)]) -> Result<usize, Broken> {
    let disk = L::new_disk();
    for (operation, fault) in faults {
        disk.plan(*operation, *fault);
    }
    let mut life = L::new(disk.clone(), wrap, L::Story::default());
    let told = |what: &str| {
        let what = what.to_owned();
        move |broken: Broken| format!("{faults:?}, {what}: {broken}")
    };
    live(&mut life).map_err(told("while it lives"))?;
    let story = life.story().clone();
    drop(life);
    disk.heal();
    // A mark that failed is a repeat; so is one that a crash took.
    let faulty = !faults.is_empty();
    if !faulty {
        L::look_at(&disk);
    }
    let after = |disk: FaultyDisk| L::new(disk, wrap, story.clone());
    let mut checked = 0;
    if !disk.is_dead() {
        after(disk.fork()).check(faulty).map_err(told("process restarted"))?;
        after(disk.fork()).go_on_and_crash().map_err(told("process restarted, then crashed"))?;
        checked += 2;
    }
    for keep in KEEPS {
        let disk = disk.fork();
        disk.restart(keep);
        let repeats_allowed = faulty || keep != Keep::All;
        after(disk).check(repeats_allowed).map_err(told(&format!("crashed, kept {keep:?}")))?;
        checked += 1;
    }
    Ok(checked)
}

/// All operations of a life without faults: their methods, and bytes written.
fn operations<L: Life>(wrap: Wrap<L>) -> Vec<(&'static str, usize)> {
    let mut life = L::new(L::new_disk(), wrap, L::Story::default());
    live(&mut life).expect("without faults nothing breaks");
    assert_eq!(life.refused(), 0);
    life.disk().operations().iter().map(|operation| (operation.method, operation.bytes)).collect()
}

/// Walks through operations `part` of `parts`; the first thing that breaks ends it. How many ends
/// were checked.
pub fn walk<L: Life>(wrap: Wrap<L>, part: usize, parts: usize) -> Result<usize, Broken> {
    let mut checked = run::<L>(wrap, &[])?;
    let all = operations::<L>(wrap);
    assert!(all.len() >= L::LEAST_OPERATIONS, "only {} operations", all.len());
    let renames = all.iter().filter(|(method, _)| *method == "rename").count();
    assert!(renames >= L::LEAST_RENAMES, "only {renames} renames");
    for (number, (method, bytes)) in all.into_iter().enumerate().skip(part).step_by(parts) {
        for fault in faults_for(method, bytes) {
            checked += run::<L>(wrap, &[(number, fault)])?;
            if matches!(fault, Fault::Fail(_) | Fault::Partial(..) | Fault::FailFrom(_)) {
                // It goes on after the failure, and then something else happens.
                for later in [1, 2, 4, 8, 16, 64] {
                    for second in L::SECOND {
                        checked += run::<L>(wrap, &[(number, fault), (number + later, *second)])?;
                    }
                }
            }
        }
    }
    Ok(checked)
}

/// The walk through one part; nothing may break.
pub fn walk_whole<L: Life>(wrap: Wrap<L>, part: usize, parts: usize) {
    match walk::<L>(wrap, part, parts) {
        Ok(checked) => assert!(checked > 2000, "only {checked} ends were checked"),
        Err(broken) => panic!("{broken}"),
    }
}
