//! The init of the bench's floor: the least that a guest can do. Compiled by rustc alone, so it declares the few calls of
//! libc that the standard library has no word for.
//!
//! It answers on the first virtio-serial port: `R` when it is up; for each `f` the microseconds that a program took from
//! its start to its end; after `s` and a count, `D` once it has read so many bytes; after `g` and a count, so many bytes;
//! after `e` everything that it reads.

use std::ffi::{CString, c_char, c_int, c_long, c_ulong, c_void};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::process::Command;
use std::time::{Duration, Instant};

unsafe extern "C" {
    fn mount(source: *const c_char, target: *const c_char, kind: *const c_char, flags: c_ulong, data: *const c_void) -> c_int;
    fn syscall(number: c_long, ...) -> c_long;
}

const SYS_FINIT_MODULE: c_long = 313;

fn main() {
    if std::env::args().nth(1).is_some() {
        return;
    }
    for (kind, target) in [("devtmpfs", "/dev"), ("proc", "/proc")] {
        let _ = fs::create_dir(target);
        let (kind, target) = (CString::new(kind).unwrap(), CString::new(target).unwrap());
        // SAFETY: all pointers are to strings that end with NUL and outlive the call.
        unsafe { mount(kind.as_ptr(), target.as_ptr(), kind.as_ptr(), 0, std::ptr::null()) };
    }
    for entry in fs::read_dir("/lib/cellule/modules").unwrap().flatten() {
        if entry.file_name().to_string_lossy().contains("virtio_mmio") {
            let module = File::open(entry.path()).unwrap();
            // SAFETY: the descriptor is open, and the parameters are an empty string.
            unsafe { syscall(SYS_FINIT_MODULE, module.as_raw_fd(), c"".as_ptr(), 0) };
        }
    }
    let mut port = loop {
        match File::options().read(true).write(true).open("/dev/vport0p1") {
            Ok(port) => break port,
            Err(_) => std::thread::sleep(Duration::from_millis(1)),
        }
    };
    port.write_all(b"R").unwrap();
    let mut buffer = vec![0; 128 << 10];
    let mut echo = false;
    loop {
        let read = port.read(&mut buffer).unwrap();
        let mut bytes = &buffer[..read];
        while let (false, Some((command, rest))) = (echo, bytes.split_first()) {
            bytes = rest;
            if *command == b'e' {
                echo = true;
            } else if *command == b's' || *command == b'g' {
                // The host sends the command and its count in one piece.
                let mut left = usize::try_from(u64::from_le_bytes(bytes[..8].try_into().unwrap())).unwrap();
                bytes = &bytes[8..];
                if *command == b's' {
                    left -= bytes.len();
                    let mut sink = vec![0; 128 << 10];
                    while left > 0 {
                        left -= port.read(&mut sink).unwrap();
                    }
                    port.write_all(b"D").unwrap();
                } else {
                    let source = vec![7; 128 << 10];
                    while left > 0 {
                        let part = left.min(source.len());
                        port.write_all(&source[..part]).unwrap();
                        left -= part;
                    }
                }
                break;
            } else {
                let begun = Instant::now();
                Command::new("/init").arg("end").status().unwrap();
                let micros = u64::try_from(begun.elapsed().as_micros()).unwrap();
                port.write_all(&micros.to_le_bytes()).unwrap();
            }
        }
        if echo {
            port.write_all(bytes).unwrap();
        }
    }
}
