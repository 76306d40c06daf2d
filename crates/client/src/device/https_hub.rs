//! A device at its hub over HTTPS (`contract/hub-device.md 5`): telemetry, on a connection that stays open.
//!
//! Start at [`HttpsDeviceClient::connect`].

use std::fmt;

use dialect::hub::telemetry_http;
use domain::clock::UnixTime;
use domain::message::Draft;
use http::header::AUTHORIZATION;
use http::{HeaderValue, Uri};
use percent_encoding::utf8_percent_encode;
use tokio::time::timeout;

use super::hub::SEGMENT;
use super::{ANSWER_TIMEOUT, CONNECT_TIMEOUT, Credential, DeviceError, Dial, Refused};
use crate::driver::in_time;
use crate::https::{Https, KeptOpen};
use crate::service::secret;

/// The version that the newest SDKs name (`contract/hub-device.md 5.2`).
const API_VERSION: &str = "2020-03-13";

/// A device with an open connection.
pub struct HttpsDeviceClient {
    connection: KeptOpen,
    device_id: String,
    target: Uri,
    /// Shown with each request; `None` where a certificate is.
    authorization: Option<HeaderValue>,
}

impl HttpsDeviceClient {
    /// Connects as `device_id`; with a symmetric key, each request shows a signature made at `now`. The hub looks at none
    /// of it before the first request.
    pub async fn connect(
        dial: &Dial,
        device_id: &str,
        credential: &Credential,
        now: UnixTime,
    ) -> Result<Self, DeviceError> {
        let encode = |text| utf8_percent_encode(text, SEGMENT);
        let resource = format!("{}%2Fdevices%2F{}", encode(&dial.server.host), encode(device_id));
        let authorization = credential.token(&resource, None, now).map(|token| secret(&token));
        let target = format!("/devices/{}/messages/events?api-version={API_VERSION}", encode(device_id));
        let target = target.parse().map_err(|_| DeviceError::Oversized)?;
        let https = Https::new(credential.tls.clone());
        let opened = timeout(CONNECT_TIMEOUT, https.keep_open(&dial.server)).await;
        let late = |_| DeviceError::Timeout { what: "the connection", after: CONNECT_TIMEOUT };
        let connection = opened.map_err(late)??;
        Ok(Self { connection, device_id: device_id.to_owned(), target, authorization })
    }

    /// Its name at the hub.
    pub fn device_id(&self) -> &str {
        &self.device_id
    }

    /// Sends telemetry and waits until the hub has taken it over.
    pub async fn send(&mut self, message: &Draft) -> Result<(), DeviceError> {
        let mut request = telemetry_http::encode(message)?;
        *request.uri_mut() = self.target.clone();
        if let Some(authorization) = &self.authorization {
            request.headers_mut().insert(AUTHORIZATION, authorization.clone());
        }
        let sending = async { Ok::<_, DeviceError>(self.connection.send(request).await?) };
        let answer = in_time("the message", ANSWER_TIMEOUT, sending).await?;
        match answer.status().as_u16() {
            200..300 => Ok(()),
            status => Err(DeviceError::Refused(Refused::read(status, answer.body()))),
        }
    }
}

impl fmt::Debug for HttpsDeviceClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpsDeviceClient").field("device_id", &self.device_id).finish_non_exhaustive()
    }
}
