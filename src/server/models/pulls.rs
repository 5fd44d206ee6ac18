//! Fetching that clients asked for: once for each source, however many ask, and for as long as one of them wants it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::library::pull::{Event, ModelName, PullError, Settings, Source, pull};

use super::Models;

/// Sources that are fetched at the same time.
const MAX_PULLS: usize = 8;
/// Steps that are told of one; words on retries are left out beyond.
const MAX_STEPS: usize = 1000;

/// How a pull ended, with the model's name; `None` where it died.
pub type End = Option<Result<ModelName, Arc<PullError>>>;

/// All that was told so far, without what is told better by what came after it.
#[derive(Debug, Default)]
struct Log {
    steps: Vec<Event>,
    end: End,
}

impl Log {
    fn add(&mut self, event: Event) {
        let is_retry = |event: &Event| matches!(event, Event::Retrying { .. });
        let is_full = self.steps.len() >= MAX_STEPS;
        match self.steps.last_mut() {
            Some(last) if event.continues(last) || (is_retry(&event) && is_retry(last)) => *last = event,
            _ if is_full && is_retry(&event) => {}
            _ => self.steps.push(event),
        }
    }
}

/// The pulls that run.
#[derive(Debug, Default)]
pub struct Pulls {
    running: Mutex<HashMap<Source, Arc<watch::Sender<Log>>>>,
}

/// What one client hears of a pull. When the last of them is dropped, the pull ends; what is there stays.
#[derive(Debug)]
pub struct Follower {
    log: watch::Receiver<Log>,
    /// How many steps were told.
    told: usize,
    /// The latest of them, as it was then.
    last: Option<Event>,
}

/// What is new.
#[derive(Debug)]
pub enum News {
    Steps(Vec<Event>),
    End(End),
}

impl Pulls {
    fn running(&self) -> MutexGuard<'_, HashMap<Source, Arc<watch::Sender<Log>>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Joins the pull of `source` where one runs, else begins it. `None` where too many run. Call it inside a runtime.
    pub fn follow(models: &Arc<Models>, source: &Source, settings: Settings) -> Option<Follower> {
        let mut running = models.pulls.running();
        let log = match running.get(source) {
            Some(sender) => sender.subscribe(),
            None if running.len() >= MAX_PULLS => return None,
            None => {
                let (sender, log) = watch::channel(Log::default());
                let sender = Arc::new(sender);
                running.insert(source.clone(), Arc::clone(&sender));
                tokio::spawn(run(Arc::clone(models), source.clone(), settings, sender));
                log
            }
        };
        Some(Follower { log, told: 0, last: None })
    }

    /// Completes when nobody follows any more, and nobody can begin to.
    async fn abandoned(&self, source: &Source, sender: &watch::Sender<Log>) {
        loop {
            sender.closed().await;
            let mut running = self.running();
            if sender.receiver_count() == 0 {
                running.remove(source);
                return;
            }
        }
    }
}

/// Takes a pull that died off the list, too.
struct Running<'a>(&'a Pulls, &'a Source);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.running().remove(self.1);
    }
}

async fn run(models: Arc<Models>, source: Source, settings: Settings, sender: Arc<watch::Sender<Log>>) {
    let report = |event| sender.send_modify(|log| log.add(event));
    let running = Running(&models.pulls, &source);
    let pulled = tokio::select! {
        pulled = pull(&source, &settings, &report) => pulled,
        () = models.pulls.abandoned(&source, &sender) => {
            // Somebody may have begun it anew already.
            std::mem::forget(running);
            return;
        }
    };
    let end = match pulled {
        // Whoever hears of it finds the model.
        Ok(pulled) => models.look_again().await.map_err(|_| ()).ok().map(|()| Ok(pulled.name)),
        Err(error) => Some(Err(Arc::new(error))),
    };
    drop(running);
    sender.send_modify(|log| log.end = end);
}

/// What a pull fetches, for whoever has followed it to its end.
#[derive(Debug)]
pub struct Fetched(watch::Receiver<Log>);

impl Fetched {
    pub fn name(&self) -> Option<ModelName> {
        self.0.borrow().end.as_ref()?.as_ref().ok().cloned()
    }
}

impl Follower {
    pub fn fetched(&self) -> Fetched {
        Fetched(self.log.clone())
    }

    /// Waits for what is new. Nothing is left out but what is the same step, further on.
    pub async fn next(&mut self) -> News {
        loop {
            if let Some(news) = self.unheard() {
                return news;
            }
            if self.log.changed().await.is_err() {
                // What was told last may be its end.
                return self.unheard().unwrap_or(News::End(None));
            }
        }
    }

    fn unheard(&mut self) -> Option<News> {
        let log = self.log.borrow_and_update();
        let latest = self.told.checked_sub(1).and_then(|at| log.steps.get(at));
        let gone_on = latest.filter(|step| Some(*step) != self.last.as_ref());
        let steps: Vec<Event> = gone_on.into_iter().chain(&log.steps[self.told..]).cloned().collect();
        if steps.is_empty() {
            return log.end.clone().map(|end| News::End(Some(end)));
        }
        self.told = log.steps.len();
        self.last = steps.last().cloned();
        Some(News::Steps(steps))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::sync::watch;

    use super::{Event, Follower, Log, MAX_STEPS, ModelName, News};

    fn fetching(what: &str, completed: u64) -> Event {
        Event::Fetching { what: what.into(), digest: None, total: 9, completed }
    }

    fn heard(news: News) -> Vec<Event> {
        match news {
            News::Steps(steps) => steps,
            News::End(end) => panic!("{end:?}"),
        }
    }

    #[tokio::test]
    async fn who_comes_late_or_reads_slowly_misses_no_step() {
        let (sender, log) = watch::channel(Log::default());
        let mut early = Follower { log: log.clone(), told: 0, last: None };
        let add = |event| sender.send_modify(|log| log.add(event));
        add(Event::Manifest);
        add(fetching("a", 1));
        assert_eq!(heard(early.next().await), [Event::Manifest, fetching("a", 1)]);
        for completed in 2..=9 {
            add(fetching("a", completed));
        }
        add(fetching("b", 0));
        assert_eq!(heard(early.next().await), [fetching("a", 9), fetching("b", 0)], "the end of what it heard of");
        let mut late = Follower { log, told: 0, last: None };
        assert_eq!(heard(late.next().await), [Event::Manifest, fetching("a", 9), fetching("b", 0)]);
        let fetched = early.fetched();
        assert!(fetched.name().is_none());
        let name: ModelName = "far".parse().expect("a name");
        sender.send_modify(|log| log.end = Some(Ok(name.clone())));
        assert_eq!(fetched.name(), Some(name));
        assert!(matches!(early.next().await, News::End(Some(Ok(_)))));
        drop(sender);
        assert!(matches!(late.next().await, News::End(Some(Ok(_)))));
    }

    #[tokio::test]
    async fn a_pull_that_dies_ends_for_its_followers() {
        let (sender, log) = watch::channel(Log::default());
        drop(sender);
        assert!(matches!(Follower { log, told: 0, last: None }.next().await, News::End(None)));
    }

    #[test]
    fn a_server_that_fails_for_ever_does_not_fill_the_memory() {
        let mut log = Log::default();
        for at in 0..2 * MAX_STEPS as u64 {
            log.add(fetching("a", at));
            log.add(Event::Retrying { reason: "cut".into(), after: Duration::ZERO });
        }
        assert!(log.steps.len() <= MAX_STEPS + 1, "{}", log.steps.len());
        assert_eq!(log.steps.last(), Some(&fetching("a", 2 * MAX_STEPS as u64 - 1)));
    }
}
