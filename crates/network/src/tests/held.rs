//! Connections that are open when the policy changes.

use smoltcp::socket::tcp::State;

use super::requests::{Talk, allow_list, request, talk};
use super::*;
use crate::held::Held;
use crate::record::Outcome;
use crate::tcp::Connections;

impl Talk {
    fn set_policy(&self, policy: Policy) {
        *self.scene.gateway.policy.borrow_mut() = policy;
        Connections::review(&self.scene.gateway);
    }

    async fn says(&mut self, text: &str) {
        self.scene.guest.write(self.socket, text.as_bytes()).await;
        self.arrives(text).await;
    }
}

#[test]
fn a_connection_that_never_had_to_show_a_name_ends_when_only_a_name_allows_it() {
    // Its own name is allowed, and it may have asked for another: nobody looked.
    talk(public(), None, async |mut talk| {
        talk.passes(&request("evil.example")).await;
        talk.set_policy(rules(Some(Base::Public), &["deny other.example"]));
        talk.says("more").await;
        talk.set_policy(allow_list());
        talk.scene.guest.until(talk.socket, |socket| socket.state() == State::Closed).await;
        assert_eq!(talk.scene.record().await.outcome, Outcome::Reset);
    });
}

#[test]
fn a_connection_that_has_no_name_to_show_goes_on_for_as_long_as_its_host_is_allowed() {
    talk(allow_list(), None, async |mut talk| {
        talk.says("SSH-2.0-client\r\n").await;
        talk.set_policy(rules(None, &["allow good.example", "allow third.example"]));
        talk.says("more").await;
        talk.set_policy(rules(None, &["allow third.example"]));
        talk.scene.guest.until(talk.socket, |socket| socket.state() == State::Closed).await;
    });
}

#[test]
fn requests_go_on_under_a_new_policy_that_each_is_held_to() {
    talk(allow_list(), None, async |mut talk| {
        talk.passes(&request("also.good.example")).await;
        talk.set_policy(rules(None, &["allow good.example"]));
        talk.passes(&request("good.example")).await;
    });
}

#[test]
fn a_connection_for_a_name_goes_on_while_that_name_is_allowed() {
    talk(allow_list(), None, async |talk| {
        let gateway = &talk.scene.gateway;
        let to = names::SHARED.parse().unwrap();
        let held = |name: &str| Held::To(name.parse().unwrap());
        assert!(gateway.may_go_on(to, &held("good.example")));
        assert!(gateway.may_go_on(to, &held("also.good.example")));
        talk.set_policy(rules(None, &["allow good.example"]));
        assert!(gateway.may_go_on(to, &held("good.example")));
        assert!(!gateway.may_go_on(to, &held("also.good.example")), "it is another's address as well");
        talk.set_policy(rules(Some(Base::Public), &["deny good.example"]));
        assert!(!gateway.may_go_on(to, &held("good.example")));
        assert!(gateway.may_go_on(to, &Held::Inbound));
    });
}
