//! What imports and exports of identities need of dialects and sockets: lines in Azure's spelling, and containers outside.

use async_trait::async_trait;
use bytes::Bytes;
use client::outbound::Outbound;
use dialect::http::Target;
use dialect::hub::{blob_http, transfer_json};
use domain::configuration::Configuration;
use domain::file::{BlockId, StorageToken};
use domain::identity::{Identity, IdentityDraft};
use domain::route::{Refusal, Url};
use domain::transfer::{ImportFile, Line, LineFault};
use domain::twin::Twin;
use service::Exchange;

/// Lines in Azure's spelling, and containers that are reached over HTTPS.
pub struct OutboundExchange {
    outbound: Outbound,
}

impl OutboundExchange {
    /// Reaches what `outbound` does.
    pub const fn new(outbound: Outbound) -> Self {
        Self { outbound }
    }
}

#[async_trait]
impl Exchange for OutboundExchange {
    fn parse_line(&self, file: ImportFile, number: u64, line: &[u8]) -> Result<Line<IdentityDraft>, LineFault> {
        transfer_json::parse_line(file, number, line)
    }

    fn show_line(&self, identity: &Identity, twin: &Twin, with_keys: bool) -> String {
        transfer_json::show_line(identity, twin, with_keys)
    }

    fn show_configuration(&self, configuration: &Configuration) -> String {
        transfer_json::show_configuration(configuration)
    }

    fn show_fault(&self, fault: &LineFault) -> String {
        transfer_json::show_fault(fault)
    }

    fn show_untold(&self, more: u64) -> String {
        transfer_json::show_untold(more)
    }

    fn parse_own(&self, url: &Url) -> Option<(String, StorageToken)> {
        let uri = url.path.parse().ok()?;
        let token = blob_http::parse_token(&Target::parse(&uri).ok()?)?;
        let (container, _) = uri.path().trim_start_matches('/').split_once('/')?;
        Some((container.to_owned(), token))
    }

    async fn check(&self, url: &Url) -> Result<(), Refusal> {
        self.outbound.check_file(url).await
    }

    async fn read(&self, url: &Url, first: u64, bytes: usize) -> Result<(Bytes, u64), Refusal> {
        self.outbound.read_file(url, first, bytes).await
    }

    async fn put_block(&self, url: &Url, block: &BlockId, bytes: Bytes) -> Result<(), Refusal> {
        self.outbound.put_block(url, block, bytes).await
    }

    async fn commit(&self, url: &Url, blocks: &[BlockId]) -> Result<(), Refusal> {
        self.outbound.commit_blocks(url, blocks).await
    }
}
