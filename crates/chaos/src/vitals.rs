//! What a process of the operator holds: memory, open files, threads, tasks. And whether that grows.
//!
//! The kernel tells the first three, `/metrics` of the operator the tasks. Whether something grows is judged over the
//! run: its first quarter fills caches, pools and the allocator; the median of the last quarter must then not be above
//! that of the second by more than a slack. Medians, because what is in flight at the moment goes up and down.

use std::fs;

use serde::Serialize;

use crate::{
    Error,
    judge::{Finding, Wrong},
};

/// What a process holds at a moment; and, as a slack, how much more is no growth yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Vitals {
    /// Memory that is resident, in KiB.
    pub memory_kib: u64,
    /// Open file descriptors: files, sockets, pipes.
    pub open_files: u64,
    /// Threads of the kernel.
    pub threads: u64,
    /// Tasks of the runtime.
    pub tasks: u64,
}

/// The name of one figure in messages, and how it is read.
type Figure = (&'static str, fn(&Vitals) -> u64);

const FIGURES: [Figure; 4] = [
    ("KiB of memory", |vitals| vitals.memory_kib),
    ("open files", |vitals| vitals.open_files),
    ("threads", |vitals| vitals.threads),
    ("tasks", |vitals| vitals.tasks),
];

/// The series of `/metrics` that counts the tasks.
const TASKS: &str = "webhook_operator_tasks ";

impl Vitals {
    /// Those of a process that runs, with what its `/metrics` say.
    ///
    /// # Errors
    /// `/proc` or the page do not tell.
    pub fn of(process: u32, page: &str) -> Result<Self, Error> {
        let lacks = |what: &str| Error::Stage(format!("process {process} does not tell {what}"));
        let status =
            fs::read_to_string(format!("/proc/{process}/status")).map_err(|_| lacks("its status"))?;
        let files = fs::read_dir(format!("/proc/{process}/fd")).map_err(|_| lacks("its open files"))?;
        let number = |text: &str, name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|line| line.split_whitespace().next())
                .and_then(|figure| figure.parse().ok())
                .ok_or_else(|| lacks(name))
        };
        Ok(Self {
            memory_kib: number(&status, "VmRSS:")?,
            open_files: u64::try_from(files.count()).unwrap_or(u64::MAX),
            threads: number(&status, "Threads:")?,
            tasks: number(page, TASKS)?,
        })
    }
}

/// How one figure went over a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Course {
    /// Median of the second quarter.
    pub second_quarter: u64,
    /// Median of the last quarter.
    pub last_quarter: u64,
    /// Largest of all.
    pub most: u64,
    /// Slope of the line through all but the first quarter, for an hour.
    pub per_hour: f64,
}

/// How all of them went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Courses {
    /// Memory that is resident.
    pub memory_kib: Course,
    /// Open file descriptors.
    pub open_files: Course,
    /// Threads.
    pub threads: Course,
    /// Tasks.
    pub tasks: Course,
}

/// Judges samples that were taken at even intervals of so many seconds: how each figure went, and which of them grew.
///
/// # Errors
/// Fewer than eight samples show nothing.
pub fn judge(samples: &[Vitals], interval: f64, slack: &Vitals) -> Result<(Courses, Vec<Finding>), Error> {
    if samples.len() < 8 {
        return Err(Error::Stage(format!(
            "{} samples are too few to judge growth by",
            samples.len()
        )));
    }
    let quarter = samples.len() / 4;
    let mut findings = Vec::new();
    let courses = FIGURES.map(|(name, read)| {
        let figures: Vec<u64> = samples.iter().map(read).collect();
        let part = |from: usize, to: usize| median(figures.get(from..to).unwrap_or_default());
        let course = Course {
            second_quarter: part(quarter, 2 * quarter),
            last_quarter: part(figures.len() - quarter, figures.len()),
            most: figures.iter().copied().max().unwrap_or_default(),
            per_hour: slope(figures.get(quarter..).unwrap_or_default()) * 3600.0 / interval,
        };
        if course.last_quarter > course.second_quarter + read(slack) {
            findings.push(Finding {
                wrong: Wrong::Growing,
                what: format!(
                    "{} {name} in the last quarter, {} in the second; {} more are no growth",
                    course.last_quarter,
                    course.second_quarter,
                    read(slack)
                ),
            });
        }
        course
    });
    let [memory_kib, open_files, threads, tasks] = courses;
    let courses = Courses {
        memory_kib,
        open_files,
        threads,
        tasks,
    };
    Ok((courses, findings))
}

fn median(figures: &[u64]) -> u64 {
    let mut sorted = figures.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

/// Slope of the line of least squares, for each step.
#[allow(
    clippy::cast_precision_loss,
    reason = "counts and KiB stay far below the 52 bits that a float keeps exactly"
)]
fn slope(figures: &[u64]) -> f64 {
    let count = figures.len() as f64;
    let middle = (count - 1.0) / 2.0;
    let mean = figures.iter().map(|figure| *figure as f64).sum::<f64>() / count;
    let (mut along, mut across) = (0.0, 0.0);
    for (step, figure) in figures.iter().enumerate() {
        let from_middle = step as f64 - middle;
        along += from_middle * (*figure as f64 - mean);
        across += from_middle * from_middle;
    }
    if across > 0.0 { along / across } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLACK: Vitals = Vitals {
        memory_kib: 1024,
        open_files: 4,
        threads: 1,
        tasks: 4,
    };

    /// A hundred samples, one each second, that go up and down by some steps.
    fn run(each: impl Fn(u64) -> Vitals) -> Vec<Vitals> {
        (0..100).map(each).collect()
    }

    fn steady(step: u64) -> Vitals {
        Vitals {
            // Caches and pools are filled in the first 20 seconds.
            memory_kib: 20_000 + step.min(20) * 500 + step % 7 * 100,
            open_files: 12 + step % 5,
            threads: 3,
            tasks: 20 + step * 13 % 11,
        }
    }

    #[test]
    fn what_goes_up_and_down_and_is_warm_after_a_quarter_does_not_grow() {
        let (courses, findings) = judge(&run(steady), 1.0, &SLACK).unwrap();
        assert_eq!(findings, []);
        assert_eq!(courses.memory_kib.last_quarter, courses.memory_kib.second_quarter);
        assert!(courses.memory_kib.per_hour.abs() < 2000.0, "{courses:?}");
        assert_eq!(courses.threads.most, 3);
    }

    #[test]
    fn each_of_them_is_found_when_it_grows() {
        let grown: [fn(u64) -> Vitals; 4] = [
            |step| Vitals {
                memory_kib: steady(step).memory_kib + step * 40,
                ..steady(step)
            },
            |step| Vitals {
                open_files: steady(step).open_files + step / 8,
                ..steady(step)
            },
            |step| Vitals {
                threads: 3 + step / 25,
                ..steady(step)
            },
            |step| Vitals {
                tasks: steady(step).tasks + step / 8,
                ..steady(step)
            },
        ];
        for (each, (name, _)) in grown.iter().zip(FIGURES) {
            let (_, findings) = judge(&run(each), 1.0, &SLACK).unwrap();
            let told: Vec<String> = findings.iter().map(ToString::to_string).collect();
            assert_eq!(told.len(), 1, "{told:?}");
            assert!(
                told[0].starts_with("Growing: ") && told[0].contains(name),
                "{told:?}"
            );
        }
    }

    #[test]
    fn the_slope_is_that_of_an_hour() {
        let each = |step: u64| Vitals {
            memory_kib: 5000 + step * 10,
            ..steady(step)
        };
        let (courses, _) = judge(&run(each), 5.0, &SLACK).unwrap();
        // 10 KiB in 5 s.
        assert!((courses.memory_kib.per_hour - 7200.0).abs() < 1e-6, "{courses:?}");
    }

    #[test]
    fn too_few_samples_are_no_run() {
        assert!(judge(&[Vitals::default(); 7], 1.0, &SLACK).is_err());
    }

    #[test]
    fn what_this_process_takes_is_seen() {
        let page = "# TYPE webhook_operator_tasks gauge\nwebhook_operator_tasks 17\n";
        let files: Vec<_> = (0..40).map(|_| fs::File::open("/dev/null").unwrap()).collect();
        let (go, wait) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || wait.recv().is_err());
        let memory = vec![1_u8; 64 << 20];
        // Not against what there was before: other tests of this process take and give at the same time.
        let vitals = Vitals::of(std::process::id(), page).unwrap();
        assert_eq!(vitals.tasks, 17);
        assert!(vitals.open_files >= files.len() as u64, "{vitals:?}");
        assert!(
            vitals.memory_kib >= memory.len() as u64 / 1024,
            "{vitals:?}, {}",
            memory.len()
        );
        assert!(vitals.threads >= 2);
        drop(go);
        assert!(thread.join().unwrap());
        assert!(Vitals::of(std::process::id(), "webhook_operator_leader 1\n").is_err());
    }
}
