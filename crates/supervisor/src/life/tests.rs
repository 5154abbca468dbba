use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

const GRACE: Duration = Duration::from_secs(7);

fn running(has_main: bool) -> Life {
    let mut life = Life::new(has_main, None);
    life.on(Input::AgentReady);
    if has_main {
        life.on(Input::Ask(1000, Request::StartMain));
        life.on(Input::MainStarted);
    }
    life
}

fn stop(grace: Duration) -> Request {
    Request::Stop { grace, signal: None }
}

fn ask(life: &mut Life, request: Request) -> Vec<Effect> {
    life.on(Input::Ask(1, request))
}

fn refused(refusal: Refusal) -> Vec<Effect> {
    vec![Effect::Answer(1, Answer::Refused(refusal))]
}

#[test]
fn a_main_program_asked_for_early_starts_once_the_agent_answers() {
    let mut life = Life::new(true, None);
    assert_eq!(ask(&mut life, Request::StartMain), []);
    assert_eq!(
        life.on(Input::Ask(2, Request::StartMain)),
        [Effect::Answer(2, Answer::Refused(Refusal::MainStarted))]
    );
    assert_eq!(life.on(Input::AgentReady), [Effect::StartMain]);
    assert_eq!(life.on(Input::MainStarted), [Effect::Answer(1, Answer::Done)]);
}

#[test]
fn memory_is_asked_of_a_guest_that_runs_and_of_no_other() {
    assert_eq!(Life::new(true, None).ask_memory(), Err(Refusal::Starting));
    let mut life = running(true);
    assert_eq!(life.ask_memory(), Ok(()));
    ask(&mut life, Request::Save);
    assert_eq!(life.ask_memory(), Err(Refusal::Saving));
    life.on(Input::Saved(1));
    ask(&mut life, Request::Pause);
    life.on(Input::Paused);
    assert_eq!(life.ask_memory(), Err(Refusal::Paused));
    ask(&mut life, stop(GRACE));
    assert_eq!(life.ask_memory(), Err(Refusal::Stopping));
}

#[test]
fn a_main_program_that_ends_ends_the_sandbox() {
    let mut life = running(true);
    let effects = life.on(Input::MainEnded);
    assert!(effects.contains(&Effect::Kill), "{effects:?}");
    assert_eq!(life.state(), State::Stopping);
    life.on(Input::Gone { powered_off: false });
    assert_eq!(life.state(), State::Stopped);
}

#[test]
fn one_that_keeps_a_disk_powers_off_when_its_main_program_has_ended() {
    let powers_off = |effects: &[Effect]| {
        effects.contains(&Effect::PowerOff(Duration::ZERO)) && !effects.contains(&Effect::Kill)
    };
    let mut life = running(true).keeping_disk(true);
    let effects = life.on(Input::MainEnded);
    assert!(powers_off(&effects), "{effects:?}");

    let mut life = running(true).keeping_disk(true);
    ask(&mut life, Request::Save);
    assert!(!life.on(Input::MainEnded).contains(&Effect::Kill));
    let effects = life.on(Input::Saved(1));
    assert!(powers_off(&effects), "{effects:?}");

    let mut life = running(true).keeping_disk(true);
    ask(&mut life, Request::Pause);
    assert!(!life.on(Input::MainEnded).contains(&Effect::Kill));
    assert!(life.on(Input::Paused).contains(&Effect::Resume));
    let effects = life.on(Input::Resumed);
    assert!(powers_off(&effects), "{effects:?}");
    // It has its limit.
    assert!(life.on(Input::Deadline).contains(&Effect::Kill));

    let mut life = running(true).keeping_disk(true);
    ask(&mut life, Request::Pause);
    life.on(Input::Paused);
    let effects = life.on(Input::MainEnded);
    assert!(effects.contains(&Effect::Resume) && !effects.contains(&Effect::Kill), "{effects:?}");
    let effects = life.on(Input::Resumed);
    assert!(powers_off(&effects), "{effects:?}");
}

#[test]
fn a_main_program_that_cannot_start_is_the_answer_and_leaves_the_sandbox() {
    let mut life = Life::new(true, None);
    life.on(Input::AgentReady);
    ask(&mut life, Request::StartMain);
    assert_eq!(life.on(Input::MainRefused), [Effect::Answer(1, Answer::MainRefused)]);
    assert_eq!(life.state(), State::Running);
    assert_eq!(ask(&mut life, Request::StartMain), refused(Refusal::MainStarted));
}

#[test]
fn stopping_asks_then_forces_then_kills() {
    let mut life = running(true);
    let sigterm = Effect::Signal { signal: SIGTERM, all: false, ticket: None };
    assert_eq!(ask(&mut life, stop(GRACE)), [Effect::Deadline(GRACE), sigterm]);
    let effects = life.on(Input::Deadline);
    assert!(effects.contains(&Effect::Signal { signal: SIGKILL, all: true, ticket: None }), "{effects:?}");
    assert!(life.on(Input::Deadline).contains(&Effect::Kill));
    assert_eq!(life.on(Input::Gone { powered_off: false }), [Effect::Answer(1, Answer::Done)]);
    assert_eq!(life.state(), State::Stopped);
}

#[test]
fn a_main_program_that_obeys_is_followed_by_an_orderly_power_off() {
    let mut life = running(true);
    ask(&mut life, Request::Stop { grace: GRACE, signal: Some(2) });
    assert!(life.on(Input::MainEnded).contains(&Effect::PowerOff(Duration::ZERO)));
    life.on(Input::Gone { powered_off: true });
    assert_eq!(life.state(), State::Stopped);
}

#[test]
fn the_signal_is_the_requests_else_the_sandboxs_else_sigterm() {
    let sent = |stop_signal, signal| {
        let mut life = Life::new(true, stop_signal);
        life.on(Input::AgentReady);
        life.on(Input::Ask(0, Request::StartMain));
        life.on(Input::MainStarted);
        match life.on(Input::Ask(1, Request::Stop { grace: GRACE, signal }))[..] {
            [_, Effect::Signal { signal, .. }] => signal,
            ref other => panic!("{other:?}"),
        }
    };
    assert_eq!((sent(None, None), sent(Some(3), None), sent(Some(3), Some(12))), (15, 3, 12));
}

#[test]
fn without_a_main_program_the_guest_is_powered_off_within_the_time() {
    let mut life = running(false);
    assert!(ask(&mut life, stop(GRACE)).contains(&Effect::PowerOff(GRACE)));
    assert_eq!(ask(&mut running(false), Request::Kill(15)), refused(Refusal::NoMain));
}

#[test]
fn no_time_at_all_ends_the_machine_at_once() {
    assert!(ask(&mut running(true), stop(Duration::ZERO)).contains(&Effect::Kill));
    assert!(
        ask(&mut Life::new(true, None), stop(GRACE)).contains(&Effect::Kill),
        "nobody is there to be asked"
    );
}

#[test]
fn a_second_stop_shortens_the_first() {
    let mut life = running(true);
    ask(&mut life, stop(GRACE));
    let shorter = Duration::from_secs(1);
    assert_eq!(life.on(Input::Ask(2, stop(shorter))), [Effect::Shorten(shorter)]);
    assert!(life.on(Input::Ask(3, Request::Kill(SIGKILL))).contains(&Effect::Signal {
        signal: SIGKILL,
        all: true,
        ticket: None
    }));
    assert!(life.on(Input::Ask(4, stop(Duration::ZERO))).contains(&Effect::Kill));
    let answers = life.on(Input::Gone { powered_off: false });
    assert_eq!(answers, [1, 2, 3, 4].map(|ticket| Effect::Answer(ticket, Answer::Done)));
}

#[test]
fn a_paused_one_goes_on_to_be_stopped_and_is_killed_at_once() {
    let paused = || {
        let mut life = running(true);
        ask(&mut life, Request::Pause);
        assert_eq!(life.on(Input::Paused), [Effect::Answer(1, Answer::Done)]);
        assert_eq!(life.state(), State::Paused);
        life
    };
    let mut life = paused();
    assert_eq!(life.on(Input::Ask(2, stop(GRACE))), [Effect::Deadline(GRACE), Effect::Resume]);
    assert_eq!(life.on(Input::Resumed), [Effect::Signal { signal: SIGTERM, all: false, ticket: None }]);
    assert_eq!(life.state(), State::Stopping);
    assert_eq!(ask(&mut paused(), Request::Kill(15)), refused(Refusal::Paused));
    assert!(ask(&mut paused(), Request::Kill(SIGKILL)).contains(&Effect::Kill));
    assert!(paused().on(Input::Expired).contains(&Effect::Kill));
    assert_eq!(ask(&mut paused(), Request::Pause), refused(Refusal::Paused));
    assert_eq!(paused().gate(), Gate::Closed);
    assert_eq!(paused().on(Input::Used), [], "a user paused it");
}

#[test]
fn one_that_is_just_being_paused_is_stopped_all_the_same() {
    let mut life = running(true);
    ask(&mut life, Request::Pause);
    let effects = life.on(Input::Ask(2, stop(GRACE)));
    assert_eq!(effects, [Effect::Deadline(GRACE), Effect::Answer(1, Answer::Refused(Refusal::Stopping))]);
    assert_eq!(life.on(Input::Paused), [Effect::Resume]);
    assert_eq!(life.on(Input::Resumed), [Effect::Signal { signal: SIGTERM, all: false, ticket: None }]);
}

#[test]
fn one_paused_for_want_of_use_goes_on_when_used() {
    let idle = || {
        let mut life = running(true);
        assert_eq!(life.on(Input::Idle { pause: true }), [Effect::Pause]);
        life
    };
    let mut life = idle();
    assert_eq!(life.gate(), Gate::Wake);
    assert_eq!(life.on(Input::Used), [], "as soon as it stands still");
    assert_eq!(life.gate(), Gate::Wait);
    assert_eq!(life.on(Input::Paused), [Effect::Resume]);
    life.on(Input::Resumed);
    assert_eq!((life.state(), life.gate()), (State::Running, Gate::Open));
    let mut life = idle();
    life.on(Input::Paused);
    assert_eq!(ask(&mut life, Request::Pause), [Effect::Answer(1, Answer::Done)], "now a user paused it");
    assert_eq!((life.on(Input::Used), life.gate()), (vec![], Gate::Closed));
}

#[test]
fn one_that_is_saved_is_again_as_it_was() {
    let mut life = running(true);
    assert_eq!(ask(&mut life, Request::Save), [Effect::Save { ticket: 1, paused: false }]);
    assert_eq!((life.state(), life.gate()), (State::Saving, Gate::Wait));
    assert_eq!(life.on(Input::Ask(2, Request::Pause)), [Effect::Answer(2, Answer::Refused(Refusal::Saving))]);
    assert_eq!(life.on(Input::Saved(1)), [Effect::Answer(1, Answer::Saved)]);
    assert_eq!((life.state(), life.gate()), (State::Running, Gate::Open));
    ask(&mut life, Request::Pause);
    life.on(Input::Paused);
    assert_eq!(ask(&mut life, Request::Save), [Effect::Save { ticket: 1, paused: true }]);
    assert_eq!(life.on(Input::Saved(1)), [Effect::Answer(1, Answer::Saved)]);
    assert_eq!((life.state(), life.gate()), (State::Paused, Gate::Closed));
}

#[test]
fn two_saves_are_made_one_after_the_other_and_a_start_waits_for_both() {
    let mut life = Life::new(true, None);
    assert_eq!(ask(&mut life, Request::Save), refused(Refusal::Starting));
    life.on(Input::AgentReady);
    assert_eq!(ask(&mut life, Request::Save), [Effect::Save { ticket: 1, paused: false }]);
    assert_eq!(life.on(Input::Ask(2, Request::Save)), []);
    assert_eq!(life.on(Input::Ask(3, Request::StartMain)), []);
    assert_eq!(life.on(Input::Saved(1)), [Effect::Answer(1, Answer::Saved), Effect::StartMain]);
    assert_eq!(
        life.on(Input::MainStarted),
        [Effect::Answer(3, Answer::Done), Effect::Save { ticket: 2, paused: false }],
        "a main program that is just being started is half of something"
    );
    assert_eq!(life.on(Input::Saved(2)), [Effect::Answer(2, Answer::Saved)]);
}

#[test]
fn one_that_is_just_being_saved_is_stopped_once_it_is_and_killed_at_once() {
    let sigterm = Effect::Signal { signal: SIGTERM, all: false, ticket: None };
    let saving = |paused| {
        let mut life = running(true);
        if paused {
            ask(&mut life, Request::Pause);
            life.on(Input::Paused);
        }
        ask(&mut life, Request::Save);
        life
    };
    let refusal = Effect::Answer(1, Answer::Refused(Refusal::Stopping));
    let mut life = saving(false);
    assert_eq!(life.on(Input::Ask(2, stop(GRACE))), [Effect::Deadline(GRACE), refusal]);
    assert_eq!(life.on(Input::Saved(1)), [sigterm]);
    let mut life = saving(true);
    assert_eq!(life.on(Input::Ask(2, stop(GRACE))), [Effect::Deadline(GRACE), refusal]);
    assert_eq!(life.on(Input::Saved(1)), [Effect::Resume]);
    assert_eq!(life.on(Input::Resumed), [sigterm]);
    assert!(saving(true).on(Input::Ask(2, Request::Kill(SIGKILL))).contains(&Effect::Kill));
    let mut life = saving(false);
    assert_eq!(life.on(Input::Ask(2, Request::Kill(15))), [], "a guest that stands still hears nothing");
    let signal = Effect::Signal { signal: 15, all: false, ticket: Some(2) };
    assert_eq!(life.on(Input::Saved(1)), [Effect::Answer(1, Answer::Saved), signal]);
    let mut life = running(false);
    ask(&mut life, Request::Save);
    life.on(Input::Ask(2, stop(GRACE)));
    assert!(
        life.on(Input::Saved(1)).contains(&Effect::PowerOff(GRACE)),
        "without a main program, as at other times"
    );
}

#[test]
fn one_paused_while_its_main_program_is_being_started_is_not_saved() {
    let mut life = Life::new(true, None);
    life.on(Input::AgentReady);
    life.on(Input::Ask(1000, Request::StartMain));
    assert_eq!(life.on(Input::Ask(3, Request::Save)), [], "it waits for the start");
    life.on(Input::Ask(2, Request::Pause));
    let paused = life.on(Input::Paused);
    assert!(paused.contains(&Effect::Answer(3, Answer::Refused(Refusal::Starting))), "{paused:?}");
    assert_eq!(ask(&mut life, Request::Save), refused(Refusal::Starting));
}

#[test]
fn an_idle_one_is_stopped_in_order() {
    let effects = running(true).on(Input::Idle { pause: false });
    assert!(effects.contains(&Effect::Signal { signal: SIGTERM, all: false, ticket: None }), "{effects:?}");
}

#[test]
fn an_owner_that_goes_takes_the_sandbox_with_it_unless_it_let_go() {
    assert!(running(true).on(Input::OwnerGone).contains(&Effect::Kill));
    let mut life = running(true);
    assert_eq!(ask(&mut life, Request::Release), [Effect::Answer(1, Answer::Done)]);
    assert_eq!(life.on(Input::OwnerGone), []);
    assert_eq!(life.state(), State::Running);
}

#[test]
fn a_lost_agent_fails_the_sandbox_and_a_power_off_does_not() {
    let mut life = running(true);
    assert!(life.on(Input::AgentLost).contains(&Effect::Kill));
    life.on(Input::Gone { powered_off: false });
    assert_eq!(life.state(), State::Failed);
    let ends = |mut life: Life, powered_off| {
        life.on(Input::Gone { powered_off });
        life.state()
    };
    assert_eq!(ends(running(true), true), State::Stopped);
    assert_eq!(ends(running(true), false), State::Failed);
    assert_eq!(ends(Life::new(true, None), true), State::Failed);
}

#[test]
fn one_that_has_ended_refuses_all_but_its_end() {
    let mut life = running(true);
    life.on(Input::Gone { powered_off: true });
    assert_eq!(ask(&mut life, Request::Pause), refused(Refusal::Ended));
    assert_eq!(ask(&mut life, Request::Release), refused(Refusal::Ended));
    assert_eq!(ask(&mut life, stop(GRACE)), [Effect::Answer(1, Answer::Done)]);
    assert_eq!(ask(&mut life, Request::Kill(SIGKILL)), [Effect::Answer(1, Answer::Done)]);
}

/// What the world does to a sandbox. `Settle` lets one of the things happen that the sandbox waits for.
#[derive(Debug, Clone, Copy)]
enum Move {
    Ask(Request),
    Settle(usize),
    Fail(usize),
    MainEnds,
    Machine { powered_off: bool },
    AgentLost,
    Used,
    OwnerGone,
    Expired,
    Idle { pause: bool },
    Deadline,
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let request = prop_oneof![
        3 => Just(Request::StartMain),
        1 => Just(Request::Release),
        2 => prop::sample::select(vec![1, 9, 15]).prop_map(Request::Kill),
        2 => (0_u64..3, prop::option::of(1..20)).prop_map(|(seconds, signal)| Request::Stop { grace: Duration::from_secs(seconds), signal }),
        3 => Just(Request::Pause),
        3 => Just(Request::Resume),
        3 => Just(Request::Save),
    ];
    let one = prop_oneof![
        10 => request.prop_map(Move::Ask),
        20 => (0_usize..4).prop_map(Move::Settle),
        1 => (0_usize..4).prop_map(Move::Fail),
        2 => Just(Move::MainEnds),
        1 => any::<bool>().prop_map(|powered_off| Move::Machine { powered_off }),
        1 => Just(Move::AgentLost),
        3 => Just(Move::Used),
        1 => Just(Move::OwnerGone),
        1 => Just(Move::Expired),
        4 => any::<bool>().prop_map(|pause| Move::Idle { pause }),
        4 => Just(Move::Deadline),
    ];
    prop::collection::vec(one, 0..60)
}

/// A sandbox and the world around it, which does what the effects ask for, in any order and time.
#[expect(clippy::struct_excessive_bools, reason = "each is a fact that has nothing to do with the others")]
struct World {
    life: Life,
    under_way: Vec<Effect>,
    starting: bool,
    asked: BTreeSet<Ticket>,
    answered: BTreeSet<Ticket>,
    mains: usize,
    main_runs: bool,
    /// Whether the processors run.
    running: bool,
    machine_gone: bool,
    deadline: bool,
    stopping: bool,
}

impl World {
    fn new(has_main: bool, keeps_disk: bool) -> Self {
        Self {
            life: Life::new(has_main, None).keeping_disk(keeps_disk),
            under_way: Vec::new(),
            starting: true,
            asked: BTreeSet::new(),
            answered: BTreeSet::new(),
            mains: 0,
            main_runs: false,
            running: true,
            machine_gone: false,
            deadline: false,
            stopping: false,
        }
    }

    fn play(&mut self, next: Move) {
        match next {
            Move::Ask(request) => {
                let ticket = self.asked.len() as Ticket;
                self.asked.insert(ticket);
                self.take(Input::Ask(ticket, request));
            }
            Move::Settle(at) => self.settle(at, true),
            Move::Fail(at) => self.settle(at, false),
            Move::MainEnds if self.main_runs && self.running => {
                self.main_runs = false;
                self.take(Input::MainEnded);
            }
            Move::Machine { powered_off } if !self.starting => self.gone(powered_off),
            Move::AgentLost if !self.starting => self.take(Input::AgentLost),
            Move::Used => self.take(Input::Used),
            Move::OwnerGone => self.take(Input::OwnerGone),
            Move::Expired => self.take(Input::Expired),
            Move::Idle { pause } => self.take(Input::Idle { pause }),
            Move::Deadline if self.deadline => {
                self.deadline = false;
                self.take(Input::Deadline);
            }
            _ => {}
        }
    }

    fn gone(&mut self, powered_off: bool) {
        if !self.machine_gone {
            self.machine_gone = true;
            self.take(Input::Gone { powered_off });
        }
    }

    fn settle(&mut self, at: usize, well: bool) {
        if self.starting && at == 0 {
            self.starting = false;
            return if well { self.take(Input::AgentReady) } else { self.gone(false) };
        }
        if self.under_way.is_empty() {
            return;
        }
        match self.under_way.remove(at % self.under_way.len()) {
            Effect::StartMain => {
                self.main_runs = well;
                self.take(if well { Input::MainStarted } else { Input::MainRefused });
            }
            Effect::Signal { signal, ticket, .. } => {
                if signal == SIGKILL && self.main_runs && well {
                    self.main_runs = false;
                    self.take(Input::MainEnded);
                }
                if let Some(ticket) = ticket {
                    self.take(Input::Signalled(ticket, well));
                }
            }
            Effect::Pause if well => {
                self.running = false;
                self.take(Input::Paused);
            }
            Effect::Resume if well => {
                self.running = true;
                self.take(Input::Resumed);
            }
            Effect::Save { ticket, .. } if well => self.take(Input::Saved(ticket)),
            Effect::Pause | Effect::Resume | Effect::Save { .. } => self.take(Input::AgentLost),
            Effect::PowerOff(_) if well => self.gone(true),
            Effect::Kill => self.gone(false),
            _ => {}
        }
    }

    fn take(&mut self, input: Input) {
        let before = self.life.state();
        let effects = self.life.on(input);
        let now = self.life.state();
        assert!(!before.is_final() || now == before, "{before} was left by {input:?}");
        if matches!(input, Input::Gone { .. }) {
            assert!(now.is_final(), "{now} after the machine's end");
        }
        self.stopping |= now == State::Stopping;
        assert!(!self.stopping || now == State::Stopping || now.is_final(), "{now} after it was to stop");
        assert_ne!(now, State::Created);
        assert!(self.life.gate() != Gate::Open || now == State::Running, "a stream in state {now}");
        assert!(before != State::Stopping || now != State::Failed || self.life.phase == Phase::Failed);
        for effect in effects {
            assert!(!before.is_final() || matches!(effect, Effect::Answer(..)), "{effect:?} after the end");
            match effect {
                Effect::Answer(ticket, _) => {
                    assert!(self.asked.contains(&ticket), "an answer that nobody asked for");
                    assert!(self.answered.insert(ticket), "{ticket} was answered twice");
                }
                Effect::Deadline(_) => self.deadline = true,
                Effect::Shorten(_) => assert!(self.deadline || self.stopping),
                Effect::StartMain => {
                    self.mains += 1;
                    assert_eq!(self.mains, 1, "a second start of the main program");
                    assert_eq!(now, State::Running);
                    self.under_way.push(effect);
                }
                Effect::Save { paused, .. } => {
                    assert_eq!((now, paused), (State::Saving, !self.running));
                    let saves = |effect: &Effect| matches!(effect, Effect::Save { .. });
                    assert!(!self.under_way.iter().any(saves), "two saves at once");
                    self.under_way.push(effect);
                }
                Effect::Kill => {
                    self.starting = false;
                    self.under_way.push(effect);
                }
                other => self.under_way.push(other),
            }
        }
    }

    /// Lets everything happen that is waited for, and only that.
    fn come_to_rest(&mut self) {
        for _ in 0..1000 {
            if self.starting || !self.under_way.is_empty() {
                self.settle(0, true);
            } else if self.stopping && self.deadline && !self.life.state().is_final() {
                self.deadline = false;
                self.take(Input::Deadline);
            } else {
                return;
            }
        }
        panic!("it never comes to rest: {:?}", self.life);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// The rules that hold after every single step are in [`World::take`].
    #[test]
    fn whatever_happens_the_rules_hold_and_everyone_is_answered(
        has_main in any::<bool>(),
        keeps_disk in any::<bool>(),
        moves in moves(),
    ) {
        let mut world = World::new(has_main, keeps_disk);
        for next in moves {
            world.play(next);
        }
        world.come_to_rest();
        let state = world.life.state();
        prop_assert!(matches!(state, State::Running | State::Paused | State::Stopped | State::Failed), "at rest in {}", state);
        if state == State::Running {
            prop_assert!(world.running, "it is said to run and stands still");
        }
        prop_assert_eq!(&world.answered, &world.asked, "at rest, and somebody waits");
        world.gone(false);
        prop_assert!(world.life.state().is_final());
        prop_assert_eq!(&world.answered, &world.asked);
    }

    #[test]
    fn who_asks_for_the_end_gets_it(has_main in any::<bool>(), keeps_disk in any::<bool>(), moves in moves()) {
        let mut world = World::new(has_main, keeps_disk);
        for next in moves {
            world.play(next);
        }
        world.play(Move::Ask(Request::Stop { grace: GRACE, signal: None }));
        world.come_to_rest();
        prop_assert!(world.life.state().is_final(), "{:?}", world.life);
    }
}
