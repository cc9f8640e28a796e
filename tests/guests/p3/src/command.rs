//! A command of WASI 0.3: each word does one thing that a test wants of a guest. What it prints of itself goes through the
//! standard library, and with that through WASI 0.2.

use futures::join;
use wasip3::clocks::{monotonic_clock, system_clock};
use wasip3::filesystem::preopens;
use wasip3::filesystem::types::{
    Descriptor, DescriptorFlags, DescriptorType, ErrorCode as FileError, NewTimestamp, OpenFlags, PathFlags,
};
use wasip3::sockets::ip_name_lookup::resolve_addresses;
use wasip3::sockets::types::{
    ErrorCode, IpAddress, IpAddressFamily, IpSocketAddress, Ipv4SocketAddress, Ipv6SocketAddress, TcpSocket, UdpSocket,
};
use wasip3::wit_bindgen::{StreamReader, spawn_local};
use wasip3::{cli, wit_stream};

wasip3::cli::command::export!(Command);

struct Command;

impl wasip3::exports::cli::run::Guest for Command {
    async fn run() -> Result<(), ()> {
        let arguments = cli::environment::get_arguments();
        let words: Vec<&str> = arguments.iter().skip(1).map(String::as_str).collect();
        match words[..] {
            [] => say(b"Hello, WASI 0.3!\n".to_vec()).await,
            ["cat"] => cat().await,
            ["exit", code] => exit_with(code.parse().expect("a code")),
            ["fail"] => return Err(()),
            ["sleep", milliseconds] => sleep(milliseconds.parse().expect("milliseconds")).await,
            ["spin"] => loop {
                std::hint::black_box(());
            },
            // As many as there can be of what the host keeps for a guest.
            ["streams"] => loop {
                std::mem::forget(wit_stream::new::<u8>());
            },
            ["tasks"] => loop {
                spawn_local(monotonic_clock::wait_for(u64::MAX / 2));
                monotonic_clock::wait_for(0).await;
            },
            ["env"] => {
                println!("{:?}", cli::environment::get_initial_cwd());
                cli::environment::get_environment().iter().for_each(|(name, value)| println!("{name}={value}"));
            }
            ["files", directory] => files(directory).await,
            ["before-1970", directory] => before_1970(directory).await,
            ["read-only", directory] => read_only(directory).await,
            ["fill", directory, bytes] => fill(directory, bytes.parse().expect("bytes")).await,
            ["states"] => {
                states(IpAddressFamily::Ipv4).await;
                states(IpAddressFamily::Ipv6).await;
                println!("sockets are sockets");
            }
            ["serve", port] => serve(port.parse().expect("a port")).await,
            ["dial", host, port, bytes] => {
                dial(host, port.parse().expect("a port"), bytes.parse().expect("bytes")).await;
            }
            ["resolve", host] => match resolve_addresses(host.to_owned()).await {
                Ok(addresses) => println!("{addresses:?}"),
                Err(e) => fail(&format!("{host}: {e:?}")),
            },
            ["udp-serve", port] => udp_serve(port.parse().expect("a port")).await,
            ["udp", host, port, text] => udp(host, port.parse().expect("a port"), text).await,
            _ => fail(&format!("what is {words:?}?")),
        }
        Ok(())
    }
}

fn fail(why: &str) -> ! {
    eprintln!("{why}");
    cli::exit::exit_with_code(2);
    unreachable!()
}

fn exit_with(code: u8) {
    cli::exit::exit_with_code(code);
}

/// A stream that holds these bytes, and what brings them into it.
fn stream_of(bytes: Vec<u8>) -> (StreamReader<u8>, impl Future<Output = usize>) {
    let (mut writer, reader) = wit_stream::new();
    (reader, async move { writer.write_all(bytes).await.len() })
}

async fn say(bytes: Vec<u8>) {
    let (reader, written) = stream_of(bytes);
    let (said, left) = join!(cli::stdout::write_via_stream(reader).into_future(), written);
    said.expect("stdout");
    assert_eq!(left, 0);
}

async fn cat() {
    let (reader, ended) = cli::stdin::read_via_stream();
    cli::stdout::write_via_stream(reader).await.expect("stdout");
    ended.await.expect("stdin");
}

async fn sleep(milliseconds: u64) {
    let began = monotonic_clock::now();
    let all = futures::future::join_all((0..10).map(|_| monotonic_clock::wait_for(milliseconds * 1_000_000)));
    all.await;
    let took = (monotonic_clock::now() - began) / 1_000_000;
    // Side by side they take as long as one.
    assert!((milliseconds..milliseconds * 5 + 1000).contains(&took), "{took} ms");
    println!("slept");
}

fn root() -> Descriptor {
    let mut found = preopens::get_directories().into_iter().filter(|(_, name)| name == "/");
    found.next().expect("a root").0
}

fn read_write() -> DescriptorFlags {
    DescriptorFlags::READ | DescriptorFlags::WRITE
}

async fn write_at(file: &Descriptor, text: &str, offset: Option<u64>) {
    let (reader, written) = stream_of(text.as_bytes().to_vec());
    let ended = match offset {
        Some(offset) => file.write_via_stream(reader, offset),
        None => file.append_via_stream(reader),
    };
    let (ended, left) = join!(ended.into_future(), written);
    ended.expect("a write");
    assert_eq!(left, 0);
}

async fn read_all(file: &Descriptor, offset: u64) -> String {
    let (reader, ended) = file.read_via_stream(offset);
    let bytes = reader.collect().await;
    ended.await.expect("a read");
    String::from_utf8(bytes).expect("text")
}

async fn names(directory: &Descriptor) -> Vec<String> {
    let (reader, ended) = directory.read_directory();
    let mut names: Vec<_> = reader.collect().await.into_iter().map(|entry| entry.name).collect();
    ended.await.expect("a listing");
    names.sort();
    names
}

async fn files(directory: &str) {
    let root = root();
    let follow = PathFlags::SYMLINK_FOLLOW;
    let directory = directory.trim_start_matches('/');
    let base = root.open_at(follow, directory.into(), OpenFlags::DIRECTORY, DescriptorFlags::MUTATE_DIRECTORY);
    let base = base.await.expect("the directory");
    assert!(matches!(base.get_type().await, Ok(DescriptorType::Directory)));
    base.create_directory_at("d".into()).await.expect("mkdir");
    assert!(matches!(base.create_directory_at("d".into()).await, Err(FileError::Exist)));
    let file = base.open_at(follow, "d/f".into(), OpenFlags::CREATE | OpenFlags::EXCLUSIVE, read_write());
    let file = file.await.expect("a file");
    assert_eq!(file.get_flags().await.expect("flags"), read_write());
    let made = base.open_at(follow, "d/made".into(), OpenFlags::CREATE, DescriptorFlags::READ).await.expect("a file");
    assert_eq!(made.get_flags().await.expect("flags"), read_write());
    assert!(matches!(made.set_size(u64::MAX).await, Err(FileError::FileTooLarge)));
    base.unlink_file_at("d/made".into()).await.expect("unlink");
    write_at(&file, "hello world", Some(0)).await;
    write_at(&file, "HELLO", Some(0)).await;
    write_at(&file, "!", None).await;
    assert_eq!(read_all(&file, 0).await, "HELLO world!");
    assert_eq!(read_all(&file, 6).await, "world!");
    assert_eq!(read_all(&file, 100).await, "");
    file.sync().await.expect("sync");
    file.set_size(5).await.expect("truncate");
    let long = "x".repeat(3 << 20);
    write_at(&file, &long, Some(5)).await;
    assert_eq!(read_all(&file, 5).await, long);
    let stat = file.stat().await.expect("stat");
    assert_eq!((stat.size, stat.link_count), (5 + (3 << 20), 1));
    assert!(matches!(stat.type_, DescriptorType::RegularFile));
    let then = system_clock::Instant { seconds: 1_000_000_000, nanoseconds: 500_000_000 };
    base.set_times_at(follow, "d/f".into(), NewTimestamp::NoChange, NewTimestamp::Timestamp(then))
        .await
        .expect("times");
    let modified = file.stat().await.expect("stat").data_modification_timestamp.expect("a time");
    assert_eq!((modified.seconds, modified.nanoseconds), (1_000_000_000, 500_000_000));
    base.symlink_at("f".into(), "d/l".into()).await.expect("symlink");
    assert_eq!(base.readlink_at("d/l".into()).await.expect("readlink"), "f");
    let linked = base.stat_at(PathFlags::empty(), "d/l".into()).await.expect("stat");
    assert!(matches!(linked.type_, DescriptorType::SymbolicLink));
    base.link_at(PathFlags::empty(), "d/f".into(), &base, "d/g".into()).await.expect("link");
    let same = base.open_at(follow, "d/g".into(), OpenFlags::empty(), DescriptorFlags::READ).await.expect("open");
    assert!(file.is_same_object(&same).await);
    let hash = |value: wasip3::filesystem::types::MetadataHashValue| (value.lower, value.upper);
    let (one, other) = (file.metadata_hash().await, base.metadata_hash_at(follow, "d/l".into()).await);
    assert_eq!(one.map(hash).expect("a hash"), other.map(hash).expect("a hash"));
    // It was opened for reading.
    let (reader, written) = stream_of(b"no".to_vec());
    let (refused, left) = join!(same.write_via_stream(reader, 0).into_future(), written);
    assert!(matches!(refused, Err(FileError::BadDescriptor)) && left == 2, "{refused:?}");
    base.rename_at("d/g".into(), &base, "d/h".into()).await.expect("rename");
    let d = base.open_at(follow, "d".into(), OpenFlags::DIRECTORY, DescriptorFlags::READ).await.expect("open");
    assert_eq!(names(&d).await, ["f", "h", "l"]);
    let (nothing, refused) = d.read_via_stream(0);
    assert!(nothing.collect().await.is_empty());
    assert!(matches!(refused.await, Err(FileError::IsDirectory)));
    assert!(matches!(base.remove_directory_at("d".into()).await, Err(FileError::NotEmpty)));
    for name in ["f", "h", "l"] {
        base.unlink_file_at(format!("d/{name}")).await.expect("unlink");
    }
    base.remove_directory_at("d".into()).await.expect("rmdir");
    assert!(matches!(base.stat_at(follow, "d".into()).await, Err(FileError::NoEntry)));
    // What is open lives on.
    assert_eq!(read_all(&file, 0).await.len(), 5 + (3 << 20));
    println!("files are files");
}

/// Sets times before 1970 by name and by descriptor, and reads them back.
async fn before_1970(directory: &str) {
    let path = format!("{}/old", directory.trim_start_matches('/'));
    let (root, none) = (root(), PathFlags::empty());
    let file = root.open_at(none, path.clone(), OpenFlags::CREATE, read_write()).await.expect("a file");
    let at = |seconds| NewTimestamp::Timestamp(system_clock::Instant { seconds, nanoseconds: 500_000_000 });
    root.set_times_at(none, path, NewTimestamp::NoChange, at(-2)).await.expect("times");
    let modified = file.stat().await.expect("stat").data_modification_timestamp.expect("a time");
    file.set_times(at(-3), NewTimestamp::NoChange).await.expect("times");
    let accessed = file.stat().await.expect("stat").data_access_timestamp.expect("a time");
    println!("{}.{:09} {}.{:09}", modified.seconds, modified.nanoseconds, accessed.seconds, accessed.nanoseconds);
}

async fn read_only(directory: &str) {
    let follow = PathFlags::SYMLINK_FOLLOW;
    let directory = directory.trim_start_matches('/');
    let flags = DescriptorFlags::READ;
    let base = root().open_at(follow, directory.into(), OpenFlags::DIRECTORY, flags).await.expect("the directory");
    let created = base.open_at(follow, "new".into(), OpenFlags::CREATE, read_write()).await;
    let made = base.create_directory_at("new".into()).await;
    let out = base.open_at(follow, "../../../../etc/shadow".into(), OpenFlags::empty(), flags).await;
    println!("{:?} {:?} {:?}", created.err(), made.err(), out.err());
}

async fn fill(directory: &str, bytes: usize) {
    let path = format!("{}/filled", directory.trim_start_matches('/'));
    let path = path.trim_start_matches('/').to_owned();
    let file =
        root().open_at(PathFlags::empty(), path, OpenFlags::CREATE, DescriptorFlags::WRITE).await.expect("a file");
    let (reader, written) = stream_of(vec![7; bytes]);
    let (ended, _) = join!(file.write_via_stream(reader, 0).into_future(), written);
    println!("{ended:?}");
}

/// The address that is this family's.
fn of(
    family: IpAddressFamily,
    four: (u8, u8, u8, u8),
    six: (u16, u16, u16, u16, u16, u16, u16, u16),
    port: u16,
) -> IpSocketAddress {
    match family {
        IpAddressFamily::Ipv4 => at(four, port),
        IpAddressFamily::Ipv6 => {
            IpSocketAddress::Ipv6(Ipv6SocketAddress { port, address: six, flow_info: 0, scope_id: 0 })
        }
    }
}

/// What sockets do and refuse, by the words of their interface.
async fn states(family: IpAddressFamily) {
    let tcp = || TcpSocket::create(family).expect("a socket");
    let udp = || UdpSocket::create(family).expect("a socket");
    let local = |port| of(family, (127, 0, 0, 1), (0, 0, 0, 0, 0, 0, 0, 1), port);
    let nowhere = of(family, (0, 0, 0, 0), (0, 0, 0, 0, 0, 0, 0, 0), 80);
    let foreign = of(family, (203, 0, 113, 1), (0x2001, 0xdb8, 0, 0, 0, 0, 0, 1), 80);
    let many = of(family, (224, 0, 0, 1), (0xff02, 0, 0, 0, 0, 0, 0, 1), 80);
    let other = match family {
        IpAddressFamily::Ipv4 => of(IpAddressFamily::Ipv6, (0, 0, 0, 0), (0, 0, 0, 0, 0, 0, 0, 1), 80),
        IpAddressFamily::Ipv6 => of(IpAddressFamily::Ipv4, (127, 0, 0, 1), (0, 0, 0, 0, 0, 0, 0, 0), 80),
    };
    let mapped = of(family, (0, 0, 0, 0), (0, 0, 0, 0, 0, 0xffff, 0x7f00, 1), 80);

    let socket = tcp();
    assert!(matches!(socket.get_local_address(), Err(ErrorCode::InvalidState)));
    assert!(matches!(socket.get_remote_address(), Err(ErrorCode::InvalidState)));
    assert!(matches!(socket.set_keep_alive_idle_time(0), Err(ErrorCode::InvalidArgument)));
    assert!(matches!(socket.set_listen_backlog_size(0), Err(ErrorCode::InvalidArgument)));
    socket.set_hop_limit(42).expect("an option");
    for wrong in [nowhere, local(0), other, many, mapped] {
        assert!(matches!(tcp().connect(wrong).await, Err(ErrorCode::InvalidArgument)), "{wrong:?}");
    }
    for wrong in [other, many] {
        assert!(matches!(socket.bind(wrong), Err(ErrorCode::InvalidArgument)), "{wrong:?}");
    }
    assert!(matches!(socket.bind(foreign), Err(ErrorCode::AddressNotBindable)));
    let (nothing, refused) = socket.receive();
    assert!(nothing.collect().await.is_empty());
    assert!(matches!(refused.await, Err(ErrorCode::InvalidState)));
    socket.bind(local(0)).expect("bind");
    assert!(matches!(socket.bind(local(0)), Err(ErrorCode::InvalidState)));
    let mut incoming = socket.listen().expect("listen");
    assert!(socket.get_is_listening() && matches!(socket.listen(), Err(ErrorCode::InvalidState)));
    assert!(matches!(socket.set_listen_backlog_size(1), Err(ErrorCode::NotSupported)));
    assert!(matches!(socket.connect(local(80)).await, Err(ErrorCode::InvalidState)));
    let own = socket.get_local_address().expect("an address");
    assert!(matches!(tcp().bind(own), Err(ErrorCode::AddressInUse)));
    let client = tcp();
    let (connected, accepted) = join!(client.connect(own), incoming.next());
    connected.expect("a connection");
    let accepted = accepted.expect("a connection");
    assert_eq!(accepted.get_hop_limit().expect("an option"), 42, "inherited");
    assert!(matches!(client.connect(own).await, Err(ErrorCode::InvalidState)));
    // One side sends and closes; the other hears the end, and still answers.
    let (reader, written) = stream_of(b"ping".to_vec());
    let (heard, _end) = accepted.receive();
    let (sent, _, heard) = join!(client.send(reader).into_future(), written, heard.collect());
    sent.expect("sent");
    assert_eq!(heard, b"ping");
    let (reader, written) = stream_of(b"pong".to_vec());
    let (back, ended) = client.receive();
    let (sent, _, back) = join!(accepted.send(reader).into_future(), written, back.collect());
    sent.expect("sent");
    ended.await.expect("a good end");
    assert_eq!(back, b"pong");
    let (reader, written) = stream_of(b"again".to_vec());
    let (again, _) = join!(client.send(reader).into_future(), written);
    assert!(matches!(again, Err(ErrorCode::InvalidState)), "{again:?}");
    let (_, again) = client.receive();
    assert!(matches!(again.await, Err(ErrorCode::InvalidState)));

    // It listens also while nobody takes what comes, and has a port if it was given none.
    let listener = tcp();
    drop(listener.listen().expect("listen"));
    let (IpSocketAddress::Ipv4(Ipv4SocketAddress { port, .. }) | IpSocketAddress::Ipv6(Ipv6SocketAddress { port, .. })) =
        listener.get_local_address().expect("an address");
    tcp().connect(local(port)).await.expect("a connection");
    drop(listener);
    let late = tcp();
    assert!(matches!(late.connect(local(port)).await, Err(ErrorCode::ConnectionRefused)));
    assert!(matches!(late.connect(own).await, Err(ErrorCode::InvalidState)));

    let server = udp();
    assert!(matches!(server.receive().await, Err(ErrorCode::InvalidState)));
    assert!(matches!(server.send(b"x".to_vec(), None).await, Err(ErrorCode::InvalidArgument)));
    assert!(matches!(server.disconnect(), Err(ErrorCode::InvalidState)));
    for wrong in [nowhere, local(0), other, mapped] {
        assert!(matches!(server.connect(wrong), Err(ErrorCode::InvalidArgument)), "{wrong:?}");
        assert!(matches!(server.send(vec![0], Some(wrong)).await, Err(ErrorCode::InvalidArgument)), "{wrong:?}");
    }
    assert!(matches!(server.bind(foreign), Err(ErrorCode::AddressNotBindable)));
    server.bind(local(0)).expect("bind");
    let there = server.get_local_address().expect("an address");
    let large = server.send(vec![0; 65536], Some(there)).await;
    assert!(matches!(large, Err(ErrorCode::DatagramTooLarge)), "{large:?}");
    let client = udp();
    client.connect(there).expect("connect");
    let elsewhere = client.send(vec![0], Some(local(9))).await;
    assert!(matches!(elsewhere, Err(ErrorCode::InvalidArgument)), "{elsewhere:?}");
    let (received, sent) = join!(server.receive(), client.send(vec![1, 2, 3], Some(there)));
    sent.expect("sent");
    let (data, from) = received.expect("a datagram");
    assert_eq!(data, [1, 2, 3]);
    assert_eq!(format!("{from:?}"), format!("{:?}", client.get_local_address().expect("an address")));
    client.disconnect().expect("disconnect");
    assert!(matches!(client.get_remote_address(), Err(ErrorCode::InvalidState)));
}

fn at(address: (u8, u8, u8, u8), port: u16) -> IpSocketAddress {
    IpSocketAddress::Ipv4(Ipv4SocketAddress { port, address })
}

async fn address_of(host: &str, port: u16) -> IpSocketAddress {
    let addresses = resolve_addresses(host.to_owned()).await.unwrap_or_else(|e| fail(&format!("{host}: {e:?}")));
    let four = addresses.into_iter().find_map(|address| match address {
        IpAddress::Ipv4(address) => Some(at(address, port)),
        IpAddress::Ipv6(_) => None,
    });
    four.expect("an address")
}

/// Gives everything back to whoever connects, many at a time.
async fn serve(port: u16) {
    let socket = TcpSocket::create(IpAddressFamily::Ipv4).expect("a socket");
    socket.bind(at((0, 0, 0, 0), port)).unwrap_or_else(|e| fail(&format!("bind: {e:?}")));
    let mut incoming = socket.listen().expect("listen");
    println!("listening");
    while let Some(connection) = incoming.next().await {
        spawn_local(async move {
            let (reader, _) = connection.receive();
            // The client may have gone.
            let _ = connection.send(reader).await;
        });
    }
}

/// Sends so many bytes and checks that they come back.
async fn dial(host: &str, port: u16, bytes: usize) {
    let socket = TcpSocket::create(IpAddressFamily::Ipv4).expect("a socket");
    let to = address_of(host, port).await;
    socket.connect(to).await.unwrap_or_else(|e| fail(&format!("{host}: {e:?}")));
    let byte = |n: usize| (n * 31 + n / 251) as u8;
    let (mut writer, reader) = wit_stream::new();
    let (mut back, ended) = socket.receive();
    let send = async {
        for start in (0..bytes).step_by(64 * 1024) {
            let chunk = (start..bytes.min(start + 64 * 1024)).map(byte).collect();
            assert!(writer.write_all(chunk).await.is_empty(), "it was cut off");
        }
        drop(writer);
    };
    let receive = async {
        let mut count = 0;
        let mut buffer = Vec::with_capacity(64 * 1024);
        loop {
            let (result, read) = back.read(buffer).await;
            read.iter().enumerate().for_each(|(n, got)| assert_eq!(*got, byte(count + n)));
            count += read.len();
            if let wasip3::wit_bindgen::StreamResult::Dropped = result {
                return count;
            }
            buffer = read;
            buffer.clear();
        }
    };
    let (sent, (), count) = join!(socket.send(reader).into_future(), send, receive);
    sent.expect("sent");
    ended.await.expect("a good end");
    assert_eq!(count, bytes);
    println!("{count} bytes came back");
}

async fn udp_serve(port: u16) {
    let socket = UdpSocket::create(IpAddressFamily::Ipv4).expect("a socket");
    socket.bind(at((0, 0, 0, 0), port)).expect("bind");
    println!("listening");
    loop {
        let (mut data, from) = socket.receive().await.expect("a datagram");
        data.make_ascii_uppercase();
        socket.send(data, Some(from)).await.expect("sent");
    }
}

async fn udp(host: &str, port: u16, text: &str) {
    let socket = UdpSocket::create(IpAddressFamily::Ipv4).expect("a socket");
    socket.connect(address_of(host, port).await).expect("connect");
    socket.send(text.as_bytes().to_vec(), None).await.expect("sent");
    let (data, from) = socket.receive().await.expect("an answer");
    assert_eq!(format!("{from:?}"), format!("{:?}", socket.get_remote_address().expect("a peer")));
    println!("{}", String::from_utf8_lossy(&data));
}
