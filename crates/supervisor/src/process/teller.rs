//! Tells the journal what happens, in its order, without making anybody wait for the disk.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::directory::SandboxDir;
use crate::journal::Action;
use crate::spec::SandboxSpec;

type News = (Action, Vec<(&'static str, String)>);

#[derive(Debug)]
pub(super) struct Teller {
    news: mpsc::UnboundedSender<News>,
    task: JoinHandle<()>,
}

impl Teller {
    pub(super) fn new(dir: &SandboxDir, spec: &SandboxSpec) -> Self {
        let (news, mut inbox) = mpsc::unbounded_channel::<News>();
        let (sandboxes, id, image) = (dir.sandboxes().clone(), spec.id.clone(), spec.image.clone());
        let task = tokio::spawn(async move {
            while let Some((action, attributes)) = inbox.recv().await {
                let (sandboxes, id, image) = (sandboxes.clone(), id.clone(), image.clone());
                let append = move || {
                    // Renamed meanwhile, it is called as it is now.
                    let name = sandboxes.name_of(&id);
                    sandboxes.events().append(&id, name.as_ref(), &image, action, attributes);
                };
                _ = tokio::task::spawn_blocking(append).await;
            }
        });
        Self { news, task }
    }

    pub(super) fn tell(&self, action: Action, attributes: Vec<(&'static str, String)>) {
        // The task ends with us alone.
        _ = self.news.send((action, attributes));
    }

    /// Waits until all of it has been told, within this time.
    pub(super) async fn finish(self, limit: Duration) {
        drop(self.news);
        _ = tokio::time::timeout(limit, self.task).await;
    }
}
