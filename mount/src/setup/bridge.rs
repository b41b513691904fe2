//! What file data wants of a server, and what a session offers: the same.

use flexfs_wire::errno::Errno;
use flexfs_wire::id::{BlockId, Commit};
use flexfs_wire::lease::Leases;
use flexfs_wire::message::{Caller, Reply, Request};
use flexfs_wire::seal::Node;
use flexfs_wire::time::Time;

use crate::cancel::Cancel;
use crate::data::Server;
use crate::lease::Recalls;
use crate::link::Remote;
use crate::link::behind::{About, Change};
use crate::store::{self, Piece, Place};

impl Server for Remote {
    type Change = Change;

    fn begin_told(&self, node: Node) -> Option<(Change, Time)> {
        let now = Self::server_now(self)?;
        let about = About { nodes: [Some(node), None], ..About::default() };
        Some((self.behind().begin(&about)?, now))
    }

    async fn call_told(
        &self,
        change: &Change,
        caller: Caller,
        request: Request,
        told: Time,
    ) -> Result<Reply, Errno> {
        Self::call_told(self, caller, request, told, change).await
    }

    fn server_now(&self) -> Option<Time> {
        Self::server_now(self)
    }

    async fn call(&self, caller: Caller, request: Request, cancel: Option<&Cancel>) -> Result<Reply, Errno> {
        Self::call(self, caller, request, cancel).await
    }

    async fn call_leased(
        &self,
        caller: Caller,
        request: Request,
        cancel: Option<&Cancel>,
    ) -> (Result<Reply, Errno>, Leases) {
        Self::call_leased(self, caller, request, cancel).await
    }

    async fn call_past(
        &self,
        caller: Caller,
        request: Request,
        cancel: Option<&Cancel>,
    ) -> Result<Reply, Errno> {
        Self::call_past(self, caller, request, cancel).await
    }

    fn recalls(&self) -> &Recalls {
        Self::recalls(self)
    }

    fn check(&self) -> Result<(), Errno> {
        Self::check(self)
    }

    fn call_later(&self, caller: Caller, request: Request) {
        Self::call_later(self, caller, request);
    }

    async fn next_block(&self) -> Result<BlockId, Errno> {
        Self::next_block(self).await
    }

    async fn put_block(&self, block: BlockId, encoded: Vec<u8>) -> Result<(), Errno> {
        Self::put_block(self, block, encoded, None).await
    }

    async fn read_block(
        &self,
        node: Node,
        block: BlockId,
        first: u32,
        places: &mut [Place<'_>],
        cancel: Option<&Cancel>,
    ) -> Result<(), Errno> {
        store::read_hosted(self, node, block, first, places, cancel).await
    }

    fn gives_pages(&self) -> bool {
        store::gives_pages(self)
    }

    async fn read_pages(&self, node: Node, piece: Piece<'_>, cancel: Option<&Cancel>) -> Result<bool, Errno> {
        store::read_pages(self, node, piece, cancel).await
    }

    fn last_commit(&self) -> Commit {
        Self::last_commit(self)
    }

    fn generation(&self) -> u64 {
        Self::generation(self)
    }

    fn is_lost(&self, commit: Commit, generation: u64) -> bool {
        self.lost_after(commit, generation)
    }

    async fn sync_to(&self, commit: Commit, cancel: Option<&Cancel>) -> Result<(), Errno> {
        Self::sync_to(self, commit, cancel).await
    }
}
