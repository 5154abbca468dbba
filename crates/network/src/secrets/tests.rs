//! Connections that are looked into, between a guest's client and a server that says what it was sent.

mod answers;
mod connections;
mod fixture;
mod given;
mod requests;
