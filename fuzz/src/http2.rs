//! HTTP/2 frames with gRPC inside, valid or not.

use arbitrary::Arbitrary;
use cellule_protocol::v1;
use prost::Message as _;

/// What the client says before its first frame.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const PATHS: [&str; 6] = ["Handshake", "Exec", "Signal", "Status", "PowerOff", "None"];

/// One frame.
#[derive(Debug, Arbitrary)]
pub enum Frame {
    /// Settings, such as windows and tables of size zero.
    Settings(Vec<(u8, u32)>),
    /// Agrees to the other side's settings.
    SettingsAck,
    /// Begins an answer, or ends one.
    Answer { stream: u8, end: bool },
    /// Ends an answer with a status.
    Trailers { stream: u8, status: u8 },
    /// Begins a call.
    Call { stream: u8, path: u8, end: bool },
    /// Carries a message.
    Data { stream: u8, end: bool, message: Message, cut: Option<u8> },
    /// Gives room.
    Window { stream: u8, by: u32 },
    /// Ends a stream.
    Reset { stream: u8, code: u8 },
    /// Ends them all.
    GoAway { last: u8, code: u8 },
    /// Anything.
    Raw { kind: u8, flags: u8, stream: u8, body: Vec<u8> },
    /// Not even a frame.
    Bytes(Vec<u8>),
}

/// What a call carries.
#[derive(Debug, Arbitrary)]
pub enum Message {
    /// The answer to a handshake.
    Handshake { kind: i8, text: String, number: u64 },
    /// An exec's start.
    Started(u32),
    /// An exec's end by itself.
    Exited { code: i32, flags: u8 },
    /// An exec's end by a signal.
    Killed(i32),
    /// An exec that was not started.
    Failed { kind: i8, message: String },
    /// What is asked for with an exec.
    Exec { id: u8, argv: Vec<Vec<u8>>, cwd: Vec<u8>, create_cwd: bool, user: String, stdin: bool, limit: u16 },
    /// What is asked for with a signal.
    Signal { id: u8, signal: i8, whole: bool },
    /// What is asked for with a handshake.
    Configure { clock: i64, hostname: String, file: Vec<u8> },
    /// Anything.
    Raw { compressed: bool, length: Option<u32>, body: Vec<u8> },
}

/// Streams of clients have odd numbers; few, so that frames meet.
fn number(stream: u8) -> u32 {
    let number = u32::from(stream % 8);
    if stream < 224 { number * 2 + 1 } else { number * 2 }
}

fn frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, body: &[u8]) {
    out.extend(&(body.len() as u32).to_be_bytes()[1..]);
    out.extend([kind, flags]);
    out.extend(stream.to_be_bytes());
    out.extend(body);
}

/// A header whose name is new to the tables.
fn header(block: &mut Vec<u8>, name: &str, value: &str) {
    block.push(0);
    for text in [name, value] {
        block.push(text.len() as u8 & 0x7f);
        block.extend(text.bytes());
    }
}

impl Frame {
    /// Its bytes, after those that are there.
    pub fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Settings(settings) => {
                let body: Vec<u8> = settings
                    .iter()
                    .flat_map(|(id, value)| [&[0, id % 8][..], &value.to_be_bytes()].concat())
                    .collect();
                frame(out, 4, 0, 0, &body);
            }
            Self::SettingsAck => frame(out, 4, 1, 0, &[]),
            Self::Answer { stream, end } => {
                // Indexed: ":status: 200".
                let mut block = vec![0x88];
                header(&mut block, "content-type", "application/grpc");
                frame(out, 1, 4 | u8::from(*end), number(*stream), &block);
            }
            Self::Trailers { stream, status } => {
                let mut block = Vec::new();
                header(&mut block, "grpc-status", &status.to_string());
                header(&mut block, "grpc-message", "%41%");
                frame(out, 1, 5, number(*stream), &block);
            }
            Self::Call { stream, path, end } => {
                // Indexed: ":method: POST", ":scheme: http".
                let mut block = vec![0x83, 0x86];
                let path = PATHS[usize::from(*path) % PATHS.len()];
                header(&mut block, ":path", &format!("/cellule.agent.v1.Agent/{path}"));
                header(&mut block, ":authority", "agent");
                header(&mut block, "content-type", "application/grpc");
                header(&mut block, "te", "trailers");
                frame(out, 1, 4 | u8::from(*end), number(*stream), &block);
            }
            Self::Data { stream, end, message, cut } => {
                let mut body = message.encode();
                body.truncate(cut.map_or(body.len(), usize::from));
                frame(out, 0, u8::from(*end), number(*stream), &body);
            }
            Self::Window { stream, by } => frame(out, 8, 0, number(*stream), &by.to_be_bytes()),
            Self::Reset { stream, code } => {
                frame(out, 3, 0, number(*stream), &u32::from(*code).to_be_bytes())
            }
            Self::GoAway { last, code } => {
                let body = [number(*last).to_be_bytes(), u32::from(*code).to_be_bytes()].concat();
                frame(out, 7, 0, 0, &body);
            }
            Self::Raw { kind, flags, stream, body } => frame(out, kind % 12, *flags, number(*stream), body),
            Self::Bytes(bytes) => out.extend(bytes),
        }
    }
}

impl Message {
    /// As gRPC frames it.
    fn encode(&self) -> Vec<u8> {
        let event = |event| v1::ExecEvent { event: Some(event) }.encode_to_vec();
        let (compressed, length, body) = match self {
            Self::Raw { compressed, length, body } => (*compressed, *length, body.clone()),
            Self::Handshake { kind, text, number } => {
                let problem = v1::Problem { kind: (*kind).into(), message: text.clone() };
                let step = v1::BootStep { name: text.clone(), started_us: *number, took_us: *number };
                let answer = v1::HandshakeResponse {
                    agent_version: text.clone(),
                    kernel_release: text.clone(),
                    memory_bytes: *number,
                    cpus: 1,
                    problems: vec![problem],
                    boot_steps: vec![step],
                };
                (false, None, answer.encode_to_vec())
            }
            Self::Started(pid) => {
                (false, None, event(v1::exec_event::Event::Started(v1::Started { pid: *pid })))
            }
            Self::Exited { code, flags } => {
                let exited = v1::Exited {
                    how: (flags & 8 == 0).then_some(v1::exited::How::Code(*code)),
                    core_dumped: flags & 1 != 0,
                    timed_out: flags & 2 != 0,
                    oom_killed: flags & 4 != 0,
                    ..v1::Exited::default()
                };
                (false, None, event(v1::exec_event::Event::Exited(exited)))
            }
            Self::Killed(signal) => {
                let how = Some(v1::exited::How::Signal(*signal));
                (
                    false,
                    None,
                    event(v1::exec_event::Event::Exited(v1::Exited { how, ..v1::Exited::default() })),
                )
            }
            Self::Failed { kind, message } => {
                let failed = v1::StartFailure {
                    kind: (*kind).into(),
                    message: message.clone(),
                    ..v1::StartFailure::default()
                };
                (false, None, event(v1::exec_event::Event::Failed(failed)))
            }
            Self::Exec { id, argv, cwd, create_cwd, user, stdin, limit } => {
                let request = v1::ExecRequest {
                    exec_id: (id % 4).into(),
                    argv: argv.clone(),
                    env: argv.clone(),
                    cwd: cwd.clone(),
                    create_cwd: *create_cwd,
                    user: user.clone(),
                    groups: Vec::new(),
                    stdin: *stdin,
                    timeout_ms: (*limit).into(),
                    ..v1::ExecRequest::default()
                };
                (false, None, request.encode_to_vec())
            }
            Self::Signal { id, signal, whole } => {
                let request = v1::SignalRequest {
                    exec_id: (id % 4).into(),
                    signal: (*signal).into(),
                    whole_exec: *whole,
                };
                (false, None, request.encode_to_vec())
            }
            Self::Configure { clock, hostname, file } => {
                let configuration = v1::Configuration {
                    hostname: hostname.clone(),
                    hosts: file.clone(),
                    ..v1::Configuration::default()
                };
                let request = v1::HandshakeRequest {
                    wall_clock_ns: *clock,
                    entropy: file.clone(),
                    configuration: Some(configuration),
                };
                (false, None, request.encode_to_vec())
            }
        };
        let length = length.unwrap_or(body.len() as u32);
        [&[u8::from(compressed)][..], &length.to_be_bytes(), &body].concat()
    }
}
