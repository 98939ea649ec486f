//! The page for the safe: what is on it, and whether a reader of QR codes gets the identity back.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use crate::support::host::Host;
use crate::support::is_long;

/// Pixels of a module: at 300 dots per inch, a code of 50 mm has about this many.
const PIXELS: usize = 8;

/// Draws the page's code as a picture: what a printer would do with it.
fn draw(page: &str, to: &Path) {
    let side = page.split_once("viewBox=\"0 0 ").unwrap().1;
    let side: usize = side.split_once(' ').unwrap().0.parse().unwrap();
    let path = page.split_once("fill=\"#000\" d=\"").unwrap().1;
    let path = path.split_once('"').unwrap().0;
    let mut dark = vec![false; side * side];
    for module in path.split('M').skip(1) {
        let (place, rest) = module.split_once('h').unwrap();
        assert_eq!(rest, "1v1h-1z");
        let (x, y) = place.split_once(',').unwrap();
        dark[y.parse::<usize>().unwrap() * side + x.parse::<usize>().unwrap()] = true;
    }
    let width = side * PIXELS;
    let mut picture = format!("P5 {width} {width} 255\n").into_bytes();
    for y in 0..width {
        let row = (0..width).map(|x| dark[y / PIXELS * side + x / PIXELS]);
        picture.extend(row.map(|is_dark| if is_dark { 0 } else { 255 }));
    }
    fs::write(to, picture).unwrap();
}

/// What a reader of QR codes sees; `None`: there is none on this machine.
fn scanned(picture: &Path) -> Option<String> {
    let out = Command::new("zbarimg")
        .args(["--quiet", "--raw", "-Sdisable", "-Sqrcode.enable"])
        .arg(picture)
        .output()
        .ok()?;
    assert!(out.status.success(), "{out:?}");
    Some(String::from_utf8(out.stdout).unwrap())
}

fn letters(page: &str) -> String {
    let (_, rest) = page.split_once("<pre class=\"letters\">").unwrap();
    rest.split_once("</pre>").unwrap().0.to_owned()
}

#[test]
fn the_paper_gives_the_identity_back() {
    let host = Host::new();
    let arguments = [
        "key",
        "paper",
        "--identity",
        "key.txt",
        "--output",
        "p.html",
    ];
    let more = [
        "--signer",
        "c.signer.pub",
        "--target",
        "s3://u:secret@b/c d",
    ];
    let all = [&arguments[..], &more].concat();
    host.ok(&all);
    let mode = fs::metadata(host.path("p.html")).unwrap().permissions();
    assert_eq!(mode.mode() & 0o777, 0o600);
    let page = fs::read_to_string(host.path("p.html")).unwrap();
    assert!(page.contains(&host.recipient) && page.contains(&host.signer));
    // What a key holder types is one word for a shell each, and names no file of another machine.
    let line = format!(
        "sealift list --from 's3://b/c d' --signer {}</code>",
        host.signer
    );
    assert!(
        page.contains(&line) && !page.contains("signer.pub"),
        "{page}"
    );
    assert!(
        !page.contains("secret@") && !page.contains("<script"),
        "{page}"
    );
    // What is typed back opens what the identity opens.
    let typed: String = letters(&page).split_whitespace().collect();
    fs::write(host.path("typed.txt"), format!("{typed}\n")).unwrap();
    let recipient = host.recipient.as_str();
    host.ok(&["key", "check", "--identity", "typed.txt", recipient]);
    draw(&page, &host.path("code.pgm"));
    match scanned(&host.path("code.pgm")) {
        Some(text) => assert_eq!(text.trim_end(), typed),
        None => println!("no zbarimg here: the code itself was not read"),
    }
    // It is not replaced, since it may be the only copy.
    let again = host.exits(&all, 1).1;
    assert!(again.contains("p.html"), "{again}");
}

/// Runs a program in the host's directory.
fn run(host: &Host, program: &str, arguments: &[&str]) {
    let mut command = Command::new(program);
    command.current_dir(host.temp.path()).args(arguments);
    let done = command.output();
    let done = done.unwrap_or_else(|error| panic!("{program}: {error}; ./test --long installs it"));
    assert!(done.status.success(), "{command:?}: {done:?}");
}

/// Opens a page in a browser without a window. All of its files stay in the host's directory.
fn browse(host: &Host, arguments: &[&str], page: &str) {
    let mut command = Command::new("chromium");
    command
        .current_dir(host.temp.path())
        .env("HOME", host.temp.path())
        .args(["--headless", "--no-sandbox", "--disable-gpu"])
        .args(["--disable-dev-shm-usage", "--user-data-dir=profile"])
        .args(arguments)
        .arg(format!("file://{}", host.path(page).display()));
    let done = command.output();
    let done = done.unwrap_or_else(|error| panic!("chromium: {error}; ./test --long installs it"));
    assert!(done.status.success(), "{command:?}: {done:?}");
}

/// A browser prints it on A4 and on Letter, on one page, and what a scanner sees of that at 300
/// dots per inch gives the identity back; so does the page on a screen.
#[test]
fn a_printed_page_gives_the_identity_back() {
    if !is_long() {
        return;
    }
    let host = Host::new();
    let mut arguments = vec![
        "key",
        "paper",
        "--identity",
        "key.txt",
        "--output",
        "p.html",
    ];
    let places = [
        "s3://backups/atocore",
        "rsync://backup@store.example.net/atocore",
    ];
    arguments.extend(places.iter().flat_map(|place| ["--target", place]));
    arguments.extend(["--signer", &host.signer]);
    host.ok(&arguments);
    let page = fs::read_to_string(host.path("p.html")).unwrap();
    let identity: String = letters(&page).split_whitespace().collect();
    let recipient = host.recipient.as_str();
    let check = |picture: &str| {
        let scan = scanned(&host.path(picture)).expect("zbarimg; ./test --long installs it");
        assert_eq!(scan.trim_end(), identity, "{picture}");
        fs::write(host.path("typed.txt"), scan).unwrap();
        host.ok(&["key", "check", "--identity", "typed.txt", recipient]);
    };
    for size in ["A4", "Letter"] {
        let sized = page.replace("size: auto", &format!("size: {size}"));
        assert_ne!(sized, page);
        fs::write(host.path("sized.html"), sized).unwrap();
        let print = ["--no-pdf-header-footer", "--print-to-pdf=p.pdf"];
        browse(&host, &print, "sized.html");
        run(&host, "pdftoppm", &["-r", "300", "-png", "p.pdf", size]);
        check(&format!("{size}-1.png"));
        assert!(
            !host.path(&format!("{size}-2.png")).exists(),
            "two pages of {size}"
        );
        // A person reads the same letters on it.
        run(&host, "pdftotext", &["p.pdf", "p.txt"]);
        let text = fs::read_to_string(host.path("p.txt")).unwrap();
        let text: String = text.split_whitespace().collect();
        assert!(text.contains(&identity), "{text}");
    }
    // 300 dots per inch of A4: a dot of CSS is 1/96 of an inch.
    let screen = [
        "--window-size=794,1123",
        "--force-device-scale-factor=3.125",
    ];
    let shot = [
        &screen[..],
        &["--hide-scrollbars", "--screenshot=screen.png"],
    ]
    .concat();
    browse(&host, &shot, "p.html");
    check("screen.png");
}

#[test]
fn the_paper_of_an_encrypted_identity_keeps_it_encrypted() {
    let host = Host::new();
    fs::write(host.path("passphrase"), "correct horse").unwrap();
    for arguments in [
        ["key", "generate", "--passphrase", "--output", "sealed.txt"].as_slice(),
        &[
            "key",
            "paper",
            "--identity",
            "sealed.txt",
            "--output",
            "p.html",
        ],
        &[
            "key",
            "paper",
            "--identity",
            "sealed.txt",
            "--decrypted",
            "--output",
            "d.html",
        ],
    ] {
        let mut command = host.command(arguments);
        command.env("SEALIFT_PASSPHRASE_FILE", host.path("passphrase"));
        let done = command.output().unwrap();
        assert!(done.status.success(), "{done:?}");
    }
    let page = fs::read_to_string(host.path("p.html")).unwrap();
    assert!(!page.contains("AGE-SE"), "{page}");
    let sealed = fs::read_to_string(host.path("sealed.txt")).unwrap();
    assert_eq!(letters(&page).trim_end(), sealed.trim_end());
    draw(&page, &host.path("code.pgm"));
    if let Some(text) = scanned(&host.path("code.pgm")) {
        assert_eq!(text.trim_end(), sealed.trim_end());
    }
    let decrypted = fs::read_to_string(host.path("d.html")).unwrap();
    let typed: String = letters(&decrypted).split_whitespace().collect();
    fs::write(host.path("typed.txt"), format!("{typed}\n")).unwrap();
    let shown = host.ok(&["key", "show", "typed.txt"]);
    assert!(decrypted.contains(shown.trim()), "{shown}");
}

/// Of several signers, some may be those of other hosts: the page names all of them, and lets its reader choose.
#[test]
fn a_paper_of_several_signers_lets_its_reader_choose() {
    let host = Host::new();
    let key = |name: &str| {
        let signer = sealift::format::signature::Signer::generate(name).unwrap();
        signer.save(&host.path(name)).unwrap();
        fs::read_to_string(host.path(&format!("{name}.pub"))).unwrap()
    };
    let (first, second) = (key("first"), key("second"));
    let write = |text: String| fs::write(host.path("allowed"), text).unwrap();
    write(format!(
        "a {first}b namespaces=\"sealift-manifest\" {second}not a line\n"
    ));
    let words = [
        "key",
        "paper",
        "--identity",
        "key.txt",
        "--output",
        "p.html",
    ];
    let of = ["--signer", "allowed"];
    let output = host.run(&[&words[..], &of].concat());
    let (_, err) = crate::support::host::texts(&output);
    assert!(output.status.success() && err.contains("line 3"), "{err}");
    let page = fs::read_to_string(host.path("p.html")).unwrap();
    assert_eq!(page.matches("<code>SHA256:").count(), 2, "{page}");
    assert!(page.contains("--signer SIGNER</code>"), "{page}");
    // A key for receipts signs no snapshot.
    write(format!("a namespaces=\"sealift-receipt\" {first}"));
    fs::remove_file(host.path("p.html")).unwrap();
    let (_, err) = host.exits(&[&words[..], &of].concat(), 2);
    assert!(
        err.contains("allowed names no key") && err.contains("signer.pub"),
        "{err}"
    );
    assert!(!host.path("p.html").exists());
}

#[test]
fn a_public_paper_has_no_identity() {
    let host = Host::new();
    host.ok(&[
        "key",
        "paper",
        "--identity",
        "key.txt",
        "--public",
        "--output",
        "p.html",
    ]);
    let page = fs::read_to_string(host.path("p.html")).unwrap();
    assert!(!page.contains("AGE-SE") && !page.contains("<svg"), "{page}");
    let key = fs::read_to_string(host.path("key.txt")).unwrap();
    let secret = key.lines().find(|line| line.starts_with("AGE-")).unwrap();
    assert!(!page.contains(&secret[20..40]));
}
