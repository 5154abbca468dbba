//! What goes over the stream of a call, valid or not.

use arbitrary::Arbitrary;
use cellule_protocol::v1;
use prost::Message as _;

const PATHS: [&str; 6] = ["Handshake", "Exec", "Signal", "Status", "PowerOff", "None"];

/// A piece of a call, or of its answer.
#[derive(Debug, Arbitrary)]
pub enum Piece {
    /// Who is called.
    Path { path: u8, length: Option<u8> },
    /// That the call is accepted.
    Accepted,
    /// A message.
    Message { message: Message, cut: Option<u8> },
    /// How the call went.
    Outcome { code: i8, text: String, errno: i8 },
    /// Anything.
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
    Raw { flags: u8, length: Option<u32>, body: Vec<u8> },
}

impl Piece {
    /// Its bytes, after those that are there.
    pub fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Path { path, length } => {
                let path = format!("/cellule.agent.v1.Agent/{}", PATHS[usize::from(*path) % PATHS.len()]);
                out.push(length.unwrap_or(path.len() as u8));
                out.extend(path.bytes());
            }
            Self::Accepted => out.extend([0x40, 0, 0, 0, 0]),
            Self::Message { message, cut } => {
                let mut bytes = message.encode();
                bytes.truncate(cut.map_or(bytes.len(), usize::from));
                out.extend(bytes);
            }
            Self::Outcome { code, text, errno } => {
                // Fields 1 and 3 are numbers, 2 is text; a negative number takes ten bytes.
                let mut body = vec![8];
                prost::encoding::encode_varint(i64::from(*code) as u64, &mut body);
                body.push(0x12);
                prost::encoding::encode_varint(text.len() as u64, &mut body);
                body.extend(text.bytes());
                body.push(0x18);
                prost::encoding::encode_varint(i64::from(*errno) as u64, &mut body);
                out.push(0x80);
                out.extend((body.len() as u32).to_be_bytes());
                out.extend(body);
            }
            Self::Bytes(bytes) => out.extend(bytes),
        }
    }
}

impl Message {
    /// As gRPC frames it.
    fn encode(&self) -> Vec<u8> {
        let event = |event| v1::ExecEvent { event: Some(event) }.encode_to_vec();
        let (flags, length, body) = match self {
            Self::Raw { flags, length, body } => (*flags, *length, body.clone()),
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
                (0, None, answer.encode_to_vec())
            }
            Self::Started(pid) => (0, None, event(v1::exec_event::Event::Started(v1::Started { pid: *pid }))),
            Self::Exited { code, flags } => {
                let exited = v1::Exited {
                    how: (flags & 8 == 0).then_some(v1::exited::How::Code(*code)),
                    core_dumped: flags & 1 != 0,
                    timed_out: flags & 2 != 0,
                    oom_killed: flags & 4 != 0,
                    ..v1::Exited::default()
                };
                (0, None, event(v1::exec_event::Event::Exited(exited)))
            }
            Self::Killed(signal) => {
                let how = Some(v1::exited::How::Signal(*signal));
                (0, None, event(v1::exec_event::Event::Exited(v1::Exited { how, ..v1::Exited::default() })))
            }
            Self::Failed { kind, message } => {
                let failed = v1::StartFailure {
                    kind: (*kind).into(),
                    message: message.clone(),
                    ..v1::StartFailure::default()
                };
                (0, None, event(v1::exec_event::Event::Failed(failed)))
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
                (0, None, request.encode_to_vec())
            }
            Self::Signal { id, signal, whole } => {
                let request = v1::SignalRequest {
                    exec_id: (id % 4).into(),
                    signal: (*signal).into(),
                    whole_exec: *whole,
                };
                (0, None, request.encode_to_vec())
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
                    ..v1::HandshakeRequest::default()
                };
                (0, None, request.encode_to_vec())
            }
        };
        let length = length.unwrap_or(body.len() as u32);
        [&[flags][..], &length.to_be_bytes(), &body].concat()
    }
}
