//! A client's socket with bounds: how long a message may be, how many descriptors it may carry, how long it may take, how
//! many calls may be under way.
//!
//! A message that is too long is refused by its header, before room is made for it; descriptors that are too many are
//! closed elsewhere, as are those that no method takes (see [`passed`]). A client that stops in the middle of a
//! message, or does not take its answers, is hung up on.
//!
//! Whatever a call is of, zbus answers it once. So calls are counted here, and not by those who carry them out: zbus starts a
//! task for each call of the standard interfaces, however many there are.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use pinfold_realm::Account;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use zbus::Message;
use zbus::connection::socket::{ReadHalf, Socket, Split, WriteHalf};
use zbus::export::async_trait::async_trait;
use zbus::message::Type;
use zruntime::lock::Semaphore;
use zruntime::{AsyncIo, Shared, SharedRuntime};

use crate::closing::OF_CLIENTS;
use crate::passed::{self, Passed, is_process_or_socket};

/// How long a message may be. The longest call is a control file's text, which is a page.
pub(crate) const LONGEST: usize = 256 << 10;
/// How many descriptors a message may carry: no method takes more.
pub(crate) const MOST_FDS: usize = 1;
/// How many calls of a client may be under way: one that is carried out, and those that wait. After that its socket fills up.
pub(crate) const MOST_CALLS: usize = 17;
/// How long a client may take over a message that it began, or over an answer that it does not read.
const PATIENCE: Duration = Duration::from_secs(30);

/// Which of all messages was the last that a client sent or was sent; before the first, which was the last when it came.
#[derive(Debug)]
pub(crate) struct LastMessage(AtomicU64);

impl LastMessage {
    /// Of one who has just come.
    pub(crate) fn new() -> Self {
        let last = Self(AtomicU64::new(0));
        last.is_now();
        last
    }

    /// Its number: less, if nothing was said for longer.
    pub(crate) fn number(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn is_now(&self) {
        static ALL: AtomicU64 = AtomicU64::new(0);
        self.0.store(ALL.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
    }
}

/// A client's socket.
#[derive(Debug)]
pub(crate) struct Stream {
    io: Arc<AsyncIo<UnixStream, Shared>>,
    runtime: SharedRuntime,
    account: Account,
    last: Arc<LastMessage>,
    patience: Duration,
}

impl Stream {
    /// Watches the socket on the runtime of this thread.
    pub(crate) fn new(stream: UnixStream, account: Account, last: Arc<LastMessage>) -> io::Result<Self> {
        let runtime = SharedRuntime::current()?;
        let io = Arc::new(AsyncIo::new(&runtime, stream)?);
        Ok(Self { io, runtime, account, last, patience: PATIENCE })
    }
}

impl Socket for Stream {
    type ReadHalf = Reader;
    type WriteHalf = Writer;

    fn split(self) -> Split<Reader, Writer> {
        let Self { io, runtime, account, last, patience } = self;
        let calls = Arc::new(Calls { places: Semaphore::new(MOST_CALLS), are_over: AtomicBool::new(false) });
        let outgoing =
            Outgoing { io: Arc::clone(&io), runtime: runtime.clone(), patience, deadline: Instant::now() };
        let meter = Meter::default();
        let incoming = Incoming { io, runtime, account, patience, meter, deadline: None, ahead: Vec::new() };
        Split::new(
            Reader { incoming, calls: Arc::clone(&calls), last: Arc::clone(&last), has_brought: false },
            Writer { outgoing, calls, last },
        )
    }
}

/// The calls of a client that are under way.
#[derive(Debug)]
struct Calls {
    /// One for each that may be.
    places: Semaphore,
    /// The client was hung up on: what is still in its socket is not read.
    are_over: AtomicBool,
}

/// The half that messages come in through.
#[derive(Debug)]
pub(crate) struct Reader {
    incoming: Incoming,
    calls: Arc<Calls>,
    last: Arc<LastMessage>,
    /// Whether the message before brought descriptors.
    has_brought: bool,
}

#[async_trait]
impl ReadHalf for Reader {
    /// A message, once there is a place for it, which a call keeps until it is answered. One that brings descriptors is
    /// carried out before the next is read: of each client the daemon keeps those of one call.
    async fn receive_message(
        &mut self,
        number: u64,
        bytes: &mut Vec<u8>,
        fds: &mut Vec<OwnedFd>,
    ) -> zbus::Result<Message> {
        if std::mem::take(&mut self.has_brought) {
            let mut all = Vec::with_capacity(MOST_CALLS);
            while all.len() < MOST_CALLS {
                all.push(self.calls.places.acquire().await);
            }
        }
        let place = self.calls.places.acquire().await;
        if self.calls.are_over.load(Ordering::Relaxed) {
            return Err(stalled().into());
        }
        let message = self.incoming.receive_message(number, bytes, fds).await?;
        self.last.is_now();
        self.has_brought = !message.data().fds().is_empty();
        if message.message_type() == Type::MethodCall {
            place.forget();
        }
        Ok(message)
    }

    fn can_pass_unix_fd(&self) -> bool {
        true
    }
}

/// The half that answers go out through.
#[derive(Debug)]
pub(crate) struct Writer {
    outgoing: Outgoing,
    calls: Arc<Calls>,
    last: Arc<LastMessage>,
}

#[async_trait]
impl WriteHalf for Writer {
    async fn send_message(&mut self, message: &Message) -> zbus::Result<()> {
        self.last.is_now();
        self.outgoing.deadline = Instant::now() + self.outgoing.patience;
        let sent = self.outgoing.send_message(message).await;
        if sent.is_err() {
            // Perhaps in the middle: nothing may follow. What is read ends too, and so does the client's place at the door. It
            // may have hung up by itself.
            self.calls.are_over.store(true, Ordering::Relaxed);
            let _ = self.outgoing.close().await;
        }
        if matches!(message.message_type(), Type::MethodReturn | Type::Error) {
            self.calls.places.add_permits(1);
        }
        sent
    }

    async fn close(&mut self) -> io::Result<()> {
        self.outgoing.close().await
    }

    fn can_pass_unix_fd(&self) -> bool {
        true
    }
}

/// What messages come from. No byte of a message is taken with another's, and so no descriptor.
#[derive(Debug)]
struct Incoming {
    io: Arc<AsyncIo<UnixStream, Shared>>,
    runtime: SharedRuntime,
    account: Account,
    patience: Duration,
    meter: Meter,
    /// When the message that has begun must be there.
    deadline: Option<Instant>,
    /// What has come of a message that zbus has not asked for yet: it asks for the header first.
    ahead: Vec<u8>,
}

/// How many bytes are read at a time.
const PIECE: usize = 4096;

#[async_trait]
impl ReadHalf for Incoming {
    async fn recvmsg(&mut self, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
        let fds = if self.ahead.is_empty() { self.read().await? } else { Vec::new() };
        let length = self.ahead.len().min(buffer.len());
        buffer[..length].copy_from_slice(&self.ahead[..length]);
        self.ahead.drain(..length);
        Ok((length, fds))
    }

    fn can_pass_unix_fd(&self) -> bool {
        true
    }
}

impl Incoming {
    /// Reads more of the message that is next.
    async fn read(&mut self) -> io::Result<Vec<OwnedFd>> {
        let Self { io, runtime, account, patience, meter, deadline, ahead } = self;
        ahead.resize(PIECE, 0);
        let receiving = io.read_with(|stream| receive(stream, *account, meter, ahead));
        let (length, fds) = match *deadline {
            // Whoever says nothing may stay.
            None => receiving.await?,
            Some(deadline) => runtime.timeout_at(deadline, receiving).await.map_err(|_| stalled())??,
        };
        ahead.truncate(length);
        meter.count(ahead, fds.len())?;
        *deadline = match meter.is_between_messages() {
            true => None,
            false => Some(deadline.unwrap_or_else(|| Instant::now() + *patience)),
        };
        Ok(fds)
    }
}

/// Takes what has come of the message that is next. Who has passed too much that cannot be closed is hung up on.
fn receive(
    stream: &UnixStream,
    account: Account,
    meter: &Meter,
    buffer: &mut [u8],
) -> io::Result<(usize, Vec<OwnedFd>)> {
    let ahead = passed::look(stream, buffer)?;
    let length = meter.of_this_message(&buffer[..ahead.length])?;
    if !ahead.has_descriptors {
        return Ok((passed::take(stream, &mut buffer[..length])?, Vec::new()));
    }
    if !OF_CLIENTS.has_room(account) {
        return Err(io::Error::new(io::ErrorKind::ResourceBusy, "what this user passed cannot be closed"));
    }
    let passed = passed::take_with_descriptors(stream, &mut buffer[..length], is_process_or_socket)?;
    let Passed { length, fds, count, closing } = passed;
    OF_CLIENTS.add(account, closing);
    if count > MOST_FDS { Err(too_many()) } else { Ok((length, fds)) }
}

/// What answers go to.
#[derive(Debug)]
struct Outgoing {
    io: Arc<AsyncIo<UnixStream, Shared>>,
    runtime: SharedRuntime,
    patience: Duration,
    /// When the message that is being sent must be gone.
    deadline: Instant,
}

#[async_trait]
impl WriteHalf for Outgoing {
    async fn sendmsg(&mut self, buffer: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<usize> {
        let sending = self.io.write_with(|stream| send(stream, buffer, fds));
        self.runtime.timeout_at(self.deadline, sending).await.map_err(|_| stalled())?
    }

    async fn close(&mut self) -> io::Result<()> {
        self.io.get_ref().shutdown(std::net::Shutdown::Both)
    }

    fn can_pass_unix_fd(&self) -> bool {
        true
    }
}

fn too_many() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "more descriptors than any call takes")
}

fn stalled() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the client stalls")
}

/// Writes bytes, and descriptors with the first of them.
pub(crate) fn send(stream: &UnixStream, buffer: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "more descriptors than any answer has"));
    }
    Ok(rustix::net::sendmsg(stream, &[IoSlice::new(buffer)], &mut control, SendFlags::NOSIGNAL)?)
}

/// Follows the stream of messages by their headers.
///
/// Source: D-Bus specification, "Message Format": byte 0 is `l` or `B`, the body's length is at 4, the length of the
/// array of header fields at 12; the header ends at a multiple of 8.
#[derive(Default, Debug)]
struct Meter {
    header: [u8; HEADER],
    /// How many bytes of this message have come.
    come: usize,
    /// How long this message is, once its header has come.
    length: Option<usize>,
    fds: usize,
}

const HEADER: usize = 16;

impl Meter {
    fn is_between_messages(&self) -> bool {
        self.come == 0
    }

    /// How many of the bytes that are next belong to the message that they begin or go on with.
    fn of_this_message(&self, bytes: &[u8]) -> io::Result<usize> {
        let length = match self.length {
            Some(length) => length,
            None => {
                let missing = HEADER - self.come;
                let Some(rest) = bytes.get(..missing) else { return Ok(bytes.len()) };
                let mut header = self.header;
                header[self.come..].copy_from_slice(rest);
                length_of(&header)?
            }
        };
        Ok(bytes.len().min(length - self.come))
    }

    /// More of the stream has come. An error if that is more than a message may have.
    fn count(&mut self, mut bytes: &[u8], fds: usize) -> io::Result<()> {
        self.fds += fds;
        if self.fds > MOST_FDS {
            return Err(too_many());
        }
        while !bytes.is_empty() {
            let wanted = self.length.unwrap_or(HEADER) - self.come;
            let (now, rest) = bytes.split_at(wanted.min(bytes.len()));
            if self.length.is_none() {
                self.header[self.come..self.come + now.len()].copy_from_slice(now);
            }
            self.come += now.len();
            bytes = rest;
            if self.length.is_none() && self.come == HEADER {
                self.length = Some(length_of(&self.header)?);
            }
            if self.length == Some(self.come) {
                *self = Self::default();
            }
        }
        Ok(())
    }
}

/// The whole length of the message that begins like this.
fn length_of(header: &[u8; HEADER]) -> io::Result<usize> {
    let refused = |why: &'static str| io::Error::new(io::ErrorKind::InvalidData, why);
    let number = |at: usize| {
        let bytes = [header[at], header[at + 1], header[at + 2], header[at + 3]];
        let number = if header[0] == b'B' { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) };
        usize::try_from(number).ok()
    };
    if !matches!(header[0], b'l' | b'B') {
        return Err(refused("no message begins like that"));
    }
    let length = number(12)
        .and_then(|fields| fields.checked_add(HEADER)?.checked_next_multiple_of(8)?.checked_add(number(4)?));
    match length {
        Some(length) if length <= LONGEST => Ok(length),
        _ => Err(refused("a message longer than any call is")),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::fd::{AsFd, AsRawFd};
    use std::thread::JoinHandle;

    use rustix::event::{PollFd, PollFlags, Timespec};
    use zbus::connection::Builder;

    use super::*;

    /// A client that is served until it leaves or is hung up on. The standard interfaces are there by themselves.
    fn served(patience: Duration) -> (UnixStream, JoinHandle<()>) {
        let (client, server) = UnixStream::pair().unwrap();
        let guid = zbus::Guid::generate();
        let serving = std::thread::spawn(move || {
            zbus::block_on(async {
                let last = Arc::new(LastMessage::new());
                let stream = Stream { patience, ..Stream::new(server, Account::Host, last).unwrap() };
                let builder = Builder::authenticated_socket(stream, guid).p2p();
                let connection = builder.serve_at("/", Teller).build().await.unwrap();
                connection.closed().await;
            });
        });
        (client, serving)
    }

    struct Teller;

    #[zbus::interface(name = "org.pinfold.Teller", spawn = false)]
    impl Teller {
        async fn tell(&self, length: u32) -> Vec<u8> {
            vec![b'a'; length as usize]
        }
    }

    /// A call of a standard interface.
    fn ping() -> Message {
        Message::method_call("/", "Ping").interface("org.freedesktop.DBus.Peer").build(&()).unwrap()
    }

    /// Whether more may be written to a socket within a second.
    fn is_taken(stream: &UnixStream) -> bool {
        let second = Timespec { tv_sec: 1, tv_nsec: 0 };
        rustix::event::poll(&mut [PollFd::new(stream, PollFlags::OUT)], Some(&second)).unwrap() == 1
    }

    #[test]
    fn who_asks_and_reads_nothing_is_read_no_further_whatever_interface_it_asks() {
        let (mut client, _) = served(PATIENCE);
        client.set_nonblocking(true).unwrap();
        let calls = ping().data().repeat(64);
        let (mut sent, mut at) = (0, 0);
        while is_taken(&client) {
            let written = client.write(&calls[at..]).unwrap();
            at = (at + written) % calls.len();
            sent += written;
            assert!(sent < 8 << 20, "there is no end to what the daemon takes");
        }
    }

    #[test]
    fn a_call_with_a_descriptor_is_answered_before_the_next_is_read() {
        let (mut client, serving) = served(Duration::from_secs(1));
        let (kept, passed) = UnixStream::pair().unwrap();
        // An answer that is not read, and behind it calls that bring descriptors.
        let call = Message::method_call("/", "Tell").interface("org.pinfold.Teller").build(&(4_u32 << 20));
        client.write_all(call.unwrap().data()).unwrap();
        for _ in 0..MOST_CALLS {
            send(&client, ping().data(), &[passed.as_fd()]).unwrap();
        }
        let link = |fd: &dyn AsRawFd| std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()));
        let name = link(&passed).unwrap();
        drop(passed);
        let mut most = 0;
        while !serving.is_finished() {
            let open = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
            let links = open.filter_map(|entry| std::fs::read_link(entry.path()).ok());
            most = most.max(links.filter(|link| *link == name).count());
        }
        assert_eq!(most, 1);
        serving.join().unwrap();
        kept.set_read_timeout(Some(PATIENCE)).unwrap();
        assert_eq!((&kept).read(&mut [0]).unwrap(), 0, "nobody has the other end any more");
    }

    #[test]
    fn who_asks_more_at_once_than_may_be_under_way_is_answered_all_of_it() {
        const CALLS: usize = 20 * MOST_CALLS;
        let (client, _) = served(PATIENCE);
        let writing = client.try_clone().unwrap();
        let asking = std::thread::spawn(move || (&writing).write_all(&ping().data().repeat(CALLS)).unwrap());
        let length = {
            let answer = Message::method_return(&ping().header()).build(&()).unwrap();
            answer.data().len()
        };
        (&client).read_exact(&mut vec![0; CALLS * length]).unwrap();
        asking.join().unwrap();
    }

    #[test]
    fn who_reads_no_answer_is_hung_up_on_and_what_was_cut_is_not_continued() {
        const LENGTH: u32 = 4 << 20;
        let (client, serving) = served(Duration::from_millis(100));
        let call = Message::method_call("/", "Tell").interface("org.pinfold.Teller").build(&LENGTH).unwrap();
        (&client).write_all(call.data()).unwrap();
        (&client).write_all(ping().data()).unwrap();
        serving.join().unwrap();
        let mut come = Vec::new();
        // What was not read of what it sent makes a reset.
        let _ = (&client).read_to_end(&mut come);
        let answer = Message::method_return(&call.header()).build(&vec![b'a'; LENGTH as usize]).unwrap();
        // Serials are counted through a process.
        let (come, whole) = (&come[HEADER..], &answer.data()[HEADER..]);
        assert!(come.len() < whole.len() && whole.starts_with(come), "{} bytes came", come.len());
    }

    #[test]
    fn who_sends_a_byte_now_and_then_is_hung_up_on_as_if_it_sent_none() {
        let (client, serving) = served(Duration::from_millis(200));
        let message = message(b'l', 0, 64 << 10);
        let pause = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
        let is_open =
            || rustix::event::poll(&mut [PollFd::new(&client, PollFlags::IN)], Some(&pause)) == Ok(0);
        let sent =
            message.iter().take_while(|byte| is_open() && (&client).write_all(&[**byte]).is_ok()).count();
        assert!(sent < 400, "{sent} bytes");
        serving.join().unwrap();
    }

    /// A message with header fields and a body of these lengths.
    fn message(order: u8, fields: u32, body: u32) -> Vec<u8> {
        let number = |number: u32| if order == b'B' { number.to_be_bytes() } else { number.to_le_bytes() };
        let mut message = vec![order, 1, 0, 1];
        message.extend(number(body));
        message.extend(number(7));
        message.extend(number(fields));
        let length = (HEADER + fields as usize).next_multiple_of(8) + body as usize;
        message.resize(length, 0);
        message
    }

    #[test]
    fn messages_are_told_apart_however_they_are_cut() {
        let mut stream = message(b'l', 13, 5);
        stream.extend(message(b'B', 0, 0));
        stream.extend(message(b'l', 8, 100));
        for piece in 1..stream.len() {
            let mut meter = Meter::default();
            for bytes in stream.chunks(piece) {
                meter.count(bytes, 0).unwrap();
            }
            assert!(meter.is_between_messages(), "{piece}");
        }
    }

    #[test]
    fn what_is_too_long_is_refused_by_its_header() {
        for (fields, body, taken) in [
            (0, 0, true),
            (100, 200_000, true),
            (0, (LONGEST - HEADER) as u32, true),
            (0, (LONGEST - HEADER) as u32 + 1, false),
            (u32::MAX, 0, false),
            (0, u32::MAX, false),
            (u32::MAX, u32::MAX, false),
        ] {
            for order in [b'l', b'B'] {
                let header = &message(order, 0, 0)[..HEADER];
                let mut header: [u8; HEADER] = header.try_into().unwrap();
                let bytes = |n: u32| if order == b'B' { n.to_be_bytes() } else { n.to_le_bytes() };
                header[4..8].copy_from_slice(&bytes(body));
                header[12..].copy_from_slice(&bytes(fields));
                assert_eq!(Meter::default().count(&header, 0).is_ok(), taken, "{fields} {body}");
            }
        }
    }

    #[test]
    fn descriptors_count_for_the_message_they_come_with() {
        let message = message(b'l', 8, 8);
        let mut meter = Meter::default();
        for _ in 0..10 {
            meter.count(&message[..HEADER], MOST_FDS).unwrap();
            meter.count(&message[HEADER..], 0).unwrap();
        }
        meter.count(&message[..HEADER], MOST_FDS).unwrap();
        assert!(meter.count(&message[HEADER..], 1).is_err());
        assert!(Meter::default().count(b"GET / HTTP/1.1\r\n", 0).is_err());
    }
}
