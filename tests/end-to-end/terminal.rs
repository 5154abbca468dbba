//! A person at a terminal: raw mode, window sizes, keys, full-screen programs. The terminal is tmux.

use cellule_tests::terminal::{PROMPT, Terminal};
use cellule_tests::{Home, fixture, leftovers, processes};
use rustix::process::Signal;

/// What busybox' shell asks root with, in the root directory.
const GUEST: &str = "/ # ";

#[test]
fn a_shell_on_a_terminal_is_left_come_back_to_and_ended() {
    let home = Home::new();
    let terminal = Terminal::open(&home);
    terminal.line("cellule run --quiet --rm=false -it --name web base sh");
    terminal.shows_line(GUEST.trim_end());
    terminal.line("tty; stty size; echo $TERM");
    let screen = terminal.shows("xterm");
    assert!(screen.contains("/dev/pts/") && screen.contains("24 80"), "{screen}");

    // The window's size is the guest's; and Ctrl-C is the program's, while the shell stays.
    terminal.line("while :; do stty size; sleep 0.2; done");
    terminal.resize(100, 30);
    terminal.shows_line("30 100");
    terminal.resize(80, 24);
    terminal.keys(&["C-c"]);
    terminal.prompts(GUEST);
    terminal.line("echo st''ill here");
    terminal.shows_line("still here");

    // The keys that leave.
    terminal.keys(&["C-p", "C-q"]);
    terminal.is_sane();
    assert_eq!(home.ps([""; 0])[0]["state"], "running");
    terminal.line("cellule attach web");
    terminal.keys(&["Enter"]);
    terminal.prompts(GUEST);
    terminal.line("echo ag''ain");
    terminal.shows_line("again");
    // A Ctrl-P that nothing follows is the shell's own: the line before.
    terminal.keys(&["C-p"]);
    terminal.keys(&["Enter"]);
    terminal.shows_lines("again", 2);
    terminal.line("exit 5");
    terminal.prompts(PROMPT);
    terminal.line("echo co''de $?");
    terminal.shows_line("code 5");
    terminal.is_sane();
    _ = home.cellule(["rm", "web"]).output().exits(0);
    leftovers::assert_none(&home);
}

#[test]
fn a_full_screen_editor_edits_a_file() {
    let home = Home::new();
    let sandbox = home.detached(["--name", "web", "base", "sleep", "1000"]);
    let terminal = Terminal::open(&home);
    terminal.line("cellule exec -it web vi /tmp/note");
    // Lines that are not there, from the second to the one before the last.
    terminal.shows_lines("~", 22);
    terminal.text("ihello from vi");
    terminal.keys(&["Enter"]);
    terminal.text("second line");
    terminal.keys(&["Escape"]);
    // It takes what follows at once for the rest of a sequence.
    terminal.shows("- /tmp/note");
    terminal.shows_line("hello from vi");
    // Up, to the line's begin, and a word out: keys that are sequences.
    terminal.keys(&["Up", "Home"]);
    terminal.text("dw");
    terminal.shows_line("from vi");
    terminal.resize(120, 40);
    terminal.keys(&["C-l"]);
    terminal.shows_line("second line");
    terminal.text(":wq");
    terminal.keys(&["Enter"]);
    terminal.is_sane();
    assert_eq!(sandbox.sh("cat /tmp/note"), "from vi\nsecond line\n");
    _ = sandbox.remove();
    leftovers::assert_none(&home);
}

#[test]
fn the_terminals_mode_is_put_back_however_it_ends() {
    let home = Home::new();
    let terminal = Terminal::open(&home);
    terminal.line("cellule run --quiet -it --name one base sh");
    terminal.shows_line(GUEST.trim_end());
    let (_, engine) = leftovers::running(&home);
    processes::kill(engine);
    terminal.shows("engine");
    terminal.is_sane();

    let sandbox = home.idle();
    for signal in [Signal::TERM, Signal::HUP, Signal::INT] {
        let command = format!("cellule exec -it {} sh -c 'echo ru''ns; exec sleep 1000'", sandbox.id());
        terminal.line(&command);
        terminal.shows_line("runs");
        processes::signal(client(&home, sandbox.id()), signal);
        terminal.is_sane();
    }
    // A program that leaves its own terminal in disorder leaves ours alone.
    terminal.line(&format!("cellule exec -it {} stty raw -echo", sandbox.id()));
    terminal.is_sane();
    // One that cannot be started at all.
    terminal.line(&format!("cellule exec -it {} no-such-program", sandbox.id()));
    terminal.shows("no-such-program");
    terminal.is_sane();
    _ = sandbox.remove();
    leftovers::assert_none(&home);
}

/// The process of `cellule exec` for this sandbox.
fn client(home: &Home, id: &str) -> u32 {
    let word = format!("exec -it {id}");
    let found = leftovers::all_processes()
        .into_iter()
        .find(|(_, line)| line.contains(&word) && line.contains("cellule"));
    found.unwrap_or_else(|| panic!("no client of {}", home.path().display())).0
}

#[test]
fn shell_opens_the_best_shell_of_an_image() {
    let home = Home::new();
    let base = home.idle();
    let debian = home.detached([fixture("debian.tar").to_str().unwrap(), "sleep", "1000"]);
    let terminal = Terminal::open(&home);
    terminal.line(&format!("cellule shell {}", base.id()));
    terminal.shows_line(GUEST.trim_end());
    terminal.line("echo i am $0; stty size");
    terminal.shows_line("i am ash");
    terminal.shows_line("24 80");
    terminal.line("exit 4");
    terminal.prompts(PROMPT);
    terminal.line("echo co''de $?");
    terminal.shows_line("code 4");

    terminal.clear();
    terminal.line(&format!("cellule shell -e PS1='debian$ ' -w /usr -u nobody {}", debian.id()));
    // What bash makes of its own settings is its own affair.
    terminal.shows("/usr");
    terminal.line("echo i am $0 $BASH; pwd; id -un");
    terminal.shows("i am bash /");
    terminal.shows_line("nobody");
    terminal.prompts("/usr$");
    terminal.keys(&["C-d"]);
    terminal.is_sane();
    for sandbox in [base, debian] {
        _ = sandbox.remove();
    }
    leftovers::assert_none(&home);
}

#[test]
fn a_terminal_without_one_here_is_the_programs_alone() {
    let home = Home::new();
    // -t alone: the program has a terminal, and what it writes comes through a pipe.
    let outcome = home.run(["--quiet", "-t", "base", "sh", "-c", "tty; echo err >&2"]).output().exits(0);
    assert_eq!((outcome.out().as_str(), outcome.err().as_str()), ("/dev/pts/0\r\nerr\r\n", ""));
    _ = home.run(["--quiet", "-it", "base", "true"]).output().exits(125).says(&["not a terminal"]);
    leftovers::assert_none(&home);
}
