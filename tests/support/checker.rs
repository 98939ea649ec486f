//! The invariant of a target, checked on the files that it stores, by nothing but the format's own words: every
//! manifest that is there has its signature, every page of its table, and every archive, in full.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use sealift::base::ids::Hash;
use serde_json::Value;

/// What a host's folder holds that counts: keys of manifests, and of all that they name.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Published {
    pub manifests: BTreeSet<String>,
    pub objects: BTreeSet<String>,
}

/// What is wrong with the host's folder `folder`, or what is published in it.
pub fn look(folder: &Path) -> Result<Published, Vec<String>> {
    let mut found = Published::default();
    let mut wrong = Vec::new();
    let manifests = folder.join("manifests");
    let names = fs::read_dir(&manifests).into_iter().flatten();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    for name in names.filter(|name| !name.starts_with('.') && name.ends_with(".json")) {
        // The S3 server keeps notes of its own beside its objects.
        if name.split('-').count() != 3 {
            continue;
        }
        if let Err(what) = manifest(folder, &name, &mut found) {
            wrong.push(format!("{name}: {what}"));
        }
        found.manifests.insert(name);
    }
    match wrong.is_empty() {
        true => Ok(found),
        false => Err(wrong),
    }
}

/// [`look`], where nothing may be wrong.
pub fn assert_sound(folder: &Path) -> Published {
    look(folder).unwrap_or_else(|wrong| panic!("{}: {wrong:#?}", folder.display()))
}

fn manifest(folder: &Path, name: &str, found: &mut Published) -> Result<(), String> {
    let bytes = read(folder, &format!("manifests/{name}"))?;
    let hash16 = name.rsplit('-').next().unwrap().trim_end_matches(".json");
    if !Hash::sha256(&bytes).to_string().starts_with(hash16) {
        return Err("is not what its name says".to_owned());
    }
    let signature = format!("manifests/{name}.sig");
    let armor = read(folder, &signature)?;
    if !armor.starts_with(b"-----BEGIN SSH SIGNATURE-----")
        || !armor
            .trim_ascii_end()
            .ends_with(b"-----END SSH SIGNATURE-----")
    {
        return Err("its signature is cut short".to_owned());
    }
    found.objects.insert(signature);
    let text = String::from_utf8(bytes).map_err(|e| e.to_string())?;
    let second = text.lines().nth(1).ok_or("it has no second line")?;
    let second: Value = serde_json::from_str(second).map_err(|e| e.to_string())?;
    for page in second["tables"].as_array().ok_or("it has no tables")? {
        table(folder, page.as_str().unwrap(), found)?;
    }
    Ok(())
}

fn table(folder: &Path, page: &str, found: &mut Published) -> Result<(), String> {
    let key = format!("tables/{page}.json");
    let bytes = read(folder, &key)?;
    if Hash::sha256(&bytes).to_string() != page {
        return Err(format!("{key} is not what its name says"));
    }
    found.objects.insert(key);
    let page: Value = serde_json::from_slice(&bytes).map_err(|e| e.to_string())?;
    for row in page["rows"].as_array().ok_or("a page has no rows")? {
        let (blake3, bytes) = (row[2].as_str().unwrap(), row[4].as_u64().unwrap());
        let key = format!("archives/{}/{blake3}.tar.zst.age", &blake3[..2]);
        let sealed = read(folder, &key)?;
        if sealed.len() as u64 != bytes {
            return Err(format!(
                "{key} has {} bytes instead of {bytes}",
                sealed.len()
            ));
        }
        if Hash::blake3(&sealed).to_string() != blake3 {
            return Err(format!("{key} is not what its name says"));
        }
        found.objects.insert(key);
    }
    Ok(())
}

fn read(folder: &Path, key: &str) -> Result<Vec<u8>, String> {
    fs::read(folder.join(key)).map_err(|error| format!("{key}: {error}"))
}
