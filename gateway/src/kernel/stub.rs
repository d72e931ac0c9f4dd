//! In place of `loader` where there is no BPF: the same functions, and one sentence.

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ipnet::IpNet;

use crate::config::Xdp;
use crate::verdicts::Verdicts;

use super::{Card, KernelError, Settings, SourceAccount, Totals};

/// See the Linux side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Truth {
    /// See the Linux side.
    Maps,
    /// See the Linux side.
    Book,
}

/// A folder that was named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pins {
    folder: PathBuf,
}

impl Pins {
    /// See the Linux side.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    /// The folder that was named.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// There is nothing to remove.
    ///
    /// # Errors
    /// None.
    pub fn remove(&self) -> Result<(), KernelError> {
        Ok(())
    }
}

/// Nobody has one here.
#[derive(Debug)]
pub struct Program {
    nobody: Infallible,
}

impl Program {
    /// Cannot: says that there is no BPF here.
    ///
    /// # Errors
    /// Always.
    pub fn load(_: Option<&Pins>) -> Result<Self, KernelError> {
        Err(KernelError::Unsupported("this is another system".to_owned()))
    }

    /// See the Linux side.
    pub fn is_adopted(&self) -> bool {
        match self.nobody {}
    }

    /// See the Linux side.
    pub fn configure(&mut self, _: &Settings) -> Result<(), KernelError> {
        match self.nobody {}
    }

    /// See the Linux side.
    pub fn set_ports(&mut self, _: &[u16]) -> Result<(), KernelError> {
        match self.nobody {}
    }
}

/// Nobody has one here.
#[derive(Debug)]
pub struct Attachment(Program);

impl Attachment {
    /// See the Linux side.
    pub fn new(program: Program, _: &Xdp) -> Result<Self, KernelError> {
        Ok(Self(program))
    }

    /// See the Linux side.
    pub fn set_cards(&self, _: &Xdp) -> Result<(), KernelError> {
        match self.0.nobody {}
    }

    /// See the Linux side.
    pub fn cards(&self) -> Result<Vec<Card>, KernelError> {
        match self.0.nobody {}
    }

    /// See the Linux side.
    pub fn with<T>(&self, _: impl FnOnce(&mut Program) -> T) -> T {
        match self.0.nobody {}
    }

    /// See the Linux side.
    pub fn leave(&self) {
        match self.0.nobody {}
    }

    /// See the Linux side.
    ///
    /// # Errors
    /// None.
    pub fn come_back(&self) -> Result<(), KernelError> {
        match self.0.nobody {}
    }

    /// See the Linux side.
    ///
    /// # Errors
    /// None.
    pub fn clear(&self) -> Result<(), KernelError> {
        match self.0.nobody {}
    }

    /// See the Linux side.
    pub fn watch(&self) -> Result<(), KernelError> {
        match self.0.nobody {}
    }
}

/// Nobody has one here.
#[derive(Debug)]
pub struct Steering {
    /// What the kernel side counted.
    pub reader: MapReader,
}

/// Nobody has one here.
#[derive(Debug)]
pub struct MapReader {
    nobody: Infallible,
}

impl Steering {
    /// See the Linux side.
    pub fn start(program: &Program, _: &Arc<Verdicts>, _: &Xdp, _: &[IpNet], _: Truth) -> Result<Self, KernelError> {
        match program.nobody {}
    }

    /// See the Linux side.
    pub fn failures(&self) -> u64 {
        match self.reader.nobody {}
    }

    /// See the Linux side.
    pub fn lay_down(&self) {
        match self.reader.nobody {}
    }

    /// See the Linux side.
    pub fn take_up(&self) {
        match self.reader.nobody {}
    }
}

impl MapReader {
    /// See the Linux side.
    pub fn totals(&self) -> Result<Totals, KernelError> {
        match self.nobody {}
    }

    /// See the Linux side.
    pub fn sources(&self) -> Result<Vec<SourceAccount>, KernelError> {
        match self.nobody {}
    }

    /// See the Linux side.
    pub fn dropped(&self, _: IpNet) -> Result<u64, KernelError> {
        match self.nobody {}
    }
}
