//! In place of `loader` where there is no BPF: the same functions, and one sentence.

use std::convert::Infallible;

use super::{Attached, KernelError, Pins, Settings, Wanted};

/// Nobody has one here.
#[derive(Debug)]
pub struct Program {
    nobody: Infallible,
}

impl Program {
    /// Cannot: says that there is no BPF here.
    pub fn load(_: Option<&Pins>) -> Result<Self, KernelError> {
        Err(KernelError::Unsupported("this is another system".to_owned()))
    }

    /// See the Linux side.
    pub fn configure(&mut self, _: &Settings) -> Result<(), KernelError> {
        match self.nobody {}
    }

    /// See the Linux side.
    pub fn set_ports(&mut self, _: &[u16]) -> Result<(), KernelError> {
        match self.nobody {}
    }

    /// See the Linux side.
    pub fn set_interface(&mut self, _: u32, _: u32) -> Result<(), KernelError> {
        match self.nobody {}
    }

    /// See the Linux side.
    pub fn attach(&mut self, _: &str, _: Wanted) -> Result<Attached, KernelError> {
        match self.nobody {}
    }

    /// See the Linux side.
    pub fn detach(self) -> Result<(), KernelError> {
        match self.nobody {}
    }
}
