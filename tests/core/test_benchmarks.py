"""Benchmarks from files the test makes and damages; torchvision's download code runs against a server of the test's."""

import errno
import gzip
import http.server
import io
import os
import pickle
import socket
import tarfile
import threading
import zipfile
from hashlib import md5
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torchvision

from labcode.data import benchmarks as B


def arrays(name="cifar10", n=12, m=5, seed=0):
    rng, spec = np.random.default_rng(seed), B.SPECS[name]
    return {
        "train_images": rng.integers(0, 256, (n, *spec.shape), dtype=np.uint8),
        "train_labels": rng.integers(0, spec.classes, n),
        "test_images": rng.integers(0, 256, (m, *spec.shape), dtype=np.uint8),
        "test_labels": rng.integers(0, spec.classes, m),
        "source": np.array(f"{name} (made by the test)"),
        "class_names": np.array([f"class {c}" for c in range(spec.classes)]),
    }


@pytest.fixture(autouse=True)
def no_download(monkeypatch):
    """Whoever downloads without being told to fails the test."""

    def refuse(*_, **__):
        raise AssertionError("a download was started")

    monkeypatch.setattr(B, "_download", refuse)


# Reading


@pytest.mark.parametrize("name", sorted(B.SPECS))
def test_stored_file_becomes_tensors(tmp_path, name):
    made = arrays(name)
    np.savez(tmp_path / f"{name}.npz", **made)
    data = B.benchmark(name, root=tmp_path)
    h, w, c = B.SPECS[name].shape
    assert data.train_images.shape == (12, c, h, w) and data.test_images.shape == (5, c, h, w)
    assert data.train_images.dtype == torch.uint8 and data.train_images.is_contiguous() and len(data) == 12
    assert data.train_images[3, c - 1, 7, 2] == made["train_images"][3, 7, 2, c - 1]
    assert data.test_labels.dtype == torch.int64 and data.test_labels.tolist() == made["test_labels"].tolist()
    assert data.source == f"{name} (made by the test)" and data.class_names[1] == "class 1"


def test_folder_is_labcode_data_or_the_cache(tmp_path, monkeypatch):
    np.savez(tmp_path / "svhn.npz", **arrays("svhn"))
    monkeypatch.setenv("LABCODE_DATA", str(tmp_path))
    assert B.folder() == tmp_path and len(B.benchmark("svhn")) == 12
    monkeypatch.delenv("LABCODE_DATA")
    assert B.folder().name == "labcode"


def test_unknown_name_lists_the_known(tmp_path):
    with pytest.raises(ValueError, match="cifar10, cifar100, fashion_mnist, stl10, svhn, got 'cifar'"):
        B.benchmark("cifar", root=tmp_path)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.97, 0.9999])
def test_truncated_file(tmp_path, share):
    path = tmp_path / "cifar10.npz"
    np.savez(path, **arrays())
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(B.DataError, match="cifar10.npz is not a usable.*truncated or damaged.*Delete it"):
        B.benchmark("cifar10", root=tmp_path)


def test_every_flipped_pixel_byte_is_noticed(tmp_path):
    path = tmp_path / "cifar10.npz"
    np.savez(path, **arrays())
    whole = path.read_bytes()
    for place in range(1000, 30000, 4999):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(B.DataError, match="truncated or damaged"):
            B.benchmark("cifar10", root=tmp_path)


@pytest.mark.parametrize("content", [b"<html>404</html>", pickle.dumps({"a": 1}), b"\x93NUMPY\x01\x00garbage", b""])
def test_not_an_npz(tmp_path, content):
    (tmp_path / "cifar10.npz").write_bytes(content)
    with pytest.raises(B.DataError, match="not a usable cifar10 file"):
        B.benchmark("cifar10", root=tmp_path)


def test_single_array_is_no_benchmark(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros(3))
    os.rename(tmp_path / "x.npy", tmp_path / "cifar10.npz")
    with pytest.raises(B.DataError, match="not a usable cifar10 file"):
        B.benchmark("cifar10", root=tmp_path)


def test_damage_of_the_archive_itself_is_told(tmp_path):
    """Bytes of its directory: other ways to pack, other versions, a password; and a packed stream."""
    path = tmp_path / "cifar10.npz"
    np.savez(path, **arrays())
    whole = path.read_bytes()
    entry = whole.index(b"PK\1\2")
    spoilt = [whole[: entry + at] + bytes([to]) + whole[entry + at + 1 :] for at, to in
              ((6, 255), (8, 1), (8, 32), (10, 99), (10, 14), (46, 255))]  # fmt: skip
    with zipfile.ZipFile(path) as plain, zipfile.ZipFile(tmp_path / "packed", "w", zipfile.ZIP_LZMA) as packed:
        for name in plain.namelist():
            packed.writestr(name, plain.read(name))
    whole = (tmp_path / "packed").read_bytes()
    header = whole.index(b"train_labels.npy") + 30
    spoilt.append(whole[:header] + b"\x55" * 20 + whole[header + 20 :])
    for data in spoilt:
        path.write_bytes(data)
        with pytest.raises(B.DataError, match="cifar10.npz is not a usable cifar10 file.*Delete it"):
            B.benchmark("cifar10", root=tmp_path)


@pytest.mark.parametrize(
    "change,message",
    [
        (dict(train_labels=None), "lacks train_labels"),
        (dict(source=None, class_names=None), "lacks source, class_names"),
        (dict(train_images=np.zeros((12, 3, 32, 32), np.uint8)), r"train_images is uint8 \(12, 3, 32, 32\)"),
        (dict(test_images=np.zeros((5, 32, 32, 3), np.float32)), "test_images is float32"),
        (dict(test_images=np.zeros((5, 32, 32), np.uint8)), "test_images is uint8"),
        (dict(train_labels=np.zeros(12, np.int32)), "train_labels is int32"),
        (dict(train_labels=np.zeros(11, np.int64)), r"not int64 \(12,\)"),
        (dict(train_labels=np.full(12, 10)), "run from 10 to 10, not 0 … 9"),
        (dict(test_labels=np.array([0, 1, -1, 2, 3])), "run from -1 to 3"),
        (dict(test_images=np.zeros((0, 32, 32, 3), np.uint8), test_labels=np.arange(0)), "test_images is empty"),
        (dict(class_names=np.array(["a", "b"])), "class_names is not 10 strings"),
        (dict(class_names=np.arange(10)), "class_names is not 10 strings"),
        (dict(source=np.array("")), "source"),
        (dict(source=np.array(7)), "source"),
        (dict(source=np.array([{}], dtype=object)), "allow_pickle"),
    ],
)
def test_wrong_contents(tmp_path, change, message):
    made = {k: v for k, v in (arrays() | change).items() if v is not None}
    np.savez(tmp_path / "cifar10.npz", **made)
    with pytest.raises(B.DataError, match=message):
        B.benchmark("cifar10", root=tmp_path)


def test_file_that_may_not_be_read(tmp_path, monkeypatch):
    np.savez(tmp_path / "cifar10.npz", **arrays())

    def denied(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(B.np, "load", denied)
    with pytest.raises(B.DataError, match="may not be read"):
        B.benchmark("cifar10", root=tmp_path)


# Storing


@pytest.fixture
def provide(monkeypatch, tmp_path):
    """A download that hands out what the test wants, and a disk that is large enough."""
    calls = []

    def download(name, spec, scratch):
        calls.append(name)
        return arrays(name)

    monkeypatch.setattr(B, "_download", download)
    disk = SimpleNamespace(free=1e12)
    monkeypatch.setattr(B.shutil, "disk_usage", lambda _: disk)
    return SimpleNamespace(calls=calls, root=tmp_path / "new" / "folder", disk=disk)


def test_downloads_once_and_leaves_one_file(provide):
    first = B.benchmark("cifar10", root=provide.root)
    again = B.benchmark("cifar10", root=provide.root)
    assert provide.calls == ["cifar10"] and torch.equal(first.train_images, again.train_images)
    assert os.listdir(provide.root) == ["cifar10.npz"]


@pytest.mark.parametrize("code,message", [(errno.ENOSPC, "disk of .* is full"), (errno.EROFS, "cannot be written to")])
@pytest.mark.parametrize("where", ["savez", "replace"])
def test_disk_fails_while_storing(provide, monkeypatch, code, message, where):
    def fail(*_, **__):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(*((B.np, "savez") if where == "savez" else (B.os, "replace")), fail)
    with pytest.raises(B.DataError, match=message + ".*LABCODE_DATA"):
        B.benchmark("cifar10", root=provide.root)
    assert os.listdir(provide.root) == []


def test_half_written_file_is_never_put_in_place(provide, monkeypatch):
    write = np.savez

    def short(path, **made):
        write(path, **made)
        os.truncate(path, os.path.getsize(path) // 2)

    monkeypatch.setattr(B.np, "savez", short)
    with pytest.raises(B.DataError, match="truncated"):
        B.benchmark("cifar10", root=provide.root)
    assert os.listdir(provide.root) == []


def test_interrupted_download_leaves_nothing(provide, monkeypatch):
    def interrupt(name, spec, scratch):
        open(os.path.join(scratch, "part.tar"), "w").close()
        raise KeyboardInterrupt

    monkeypatch.setattr(B, "_download", interrupt)
    with pytest.raises(KeyboardInterrupt):
        B.benchmark("cifar10", root=provide.root)
    assert os.listdir(provide.root) == []


def test_little_space_is_said_before_the_download(provide):
    provide.disk.free = 5e6
    with pytest.raises(B.DataError, match="has 5 MB left, cifar10 takes about 600 MB"):
        B.benchmark("cifar10", root=provide.root)
    assert not provide.calls and os.listdir(provide.root) == []


def test_folder_that_cannot_be_made(tmp_path, provide):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(B.DataError, match="cannot be written to.*LABCODE_DATA"):
        B.benchmark("cifar10", root=tmp_path / "file" / "inside")
    assert not provide.calls


# Downloading: torchvision's own classes, a server on this machine


DOWNLOAD = B._download  # before the fixture above replaces it


def cifar_archive():
    """A tiny archive in CIFAR-10's format and the checksums of its members."""
    rng, packed, sums = np.random.default_rng(0), io.BytesIO(), {}
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name in [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch", "batches.meta"]:
            if name == "batches.meta":
                content = {"label_names": [f"kind {c}" for c in range(10)]}
            else:
                content = {"data": rng.integers(0, 256, (4, 3072), dtype=np.uint8), "labels": [1, 2, 3, 9]}
            content = pickle.dumps(content)
            sums[name] = md5(content).hexdigest()
            info = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return packed.getvalue(), sums


@pytest.fixture
def server(monkeypatch):
    """Serves whatever bytes ``state.body`` holds, as CIFAR-10's address."""
    body, sums = cifar_archive()
    state = SimpleNamespace(body=body, status=200, asked=0)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            state.asked += 1
            self.send_response(state.status)
            self.send_header("Content-Length", str(len(state.body)))
            self.end_headers()
            self.wfile.write(state.body)

        def log_message(self, *_):
            pass

    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=httpd.serve_forever, args=(0.01,), daemon=True).start()
    cifar = torchvision.datasets.CIFAR10
    monkeypatch.setattr(cifar, "url", f"http://127.0.0.1:{httpd.server_port}/{cifar.filename}")
    monkeypatch.setattr(cifar, "tgz_md5", md5(body).hexdigest())
    monkeypatch.setattr(cifar, "train_list", [[f"data_batch_{i}", sums[f"data_batch_{i}"]] for i in range(1, 6)])
    monkeypatch.setattr(cifar, "test_list", [["test_batch", sums["test_batch"]]])
    monkeypatch.setattr(cifar, "meta", cifar.meta | {"md5": sums["batches.meta"]})
    monkeypatch.setattr(B, "_download", DOWNLOAD)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    yield state
    httpd.shutdown()
    httpd.server_close()


def test_download_through_torchvision(server, tmp_path):
    data = B.benchmark("cifar10", root=tmp_path)
    assert data.train_images.shape == (20, 3, 32, 32) and data.test_labels.tolist() == [1, 2, 3, 9]
    assert data.class_names[9] == "kind 9" and data.source.startswith("cifar10 (torchvision")
    assert os.listdir(tmp_path) == ["cifar10.npz"]
    asked = server.asked
    assert B.benchmark("cifar10", root=tmp_path).source == data.source and server.asked == asked
    rng = np.random.default_rng(0)
    first = rng.integers(0, 256, (4, 3072), dtype=np.uint8).reshape(4, 3, 32, 32)
    assert torch.equal(data.train_images[:4], torch.from_numpy(first))


def test_download_with_another_checksum(server, tmp_path):
    server.body = server.body[:-100] + bytes(100)
    with pytest.raises(B.DataError, match="fails torchvision's checksum.*Nothing was kept"):
        B.benchmark("cifar10", root=tmp_path)
    assert os.listdir(tmp_path) == []


def test_download_refused_by_the_server(server, tmp_path):
    server.status = 503
    with pytest.raises(B.DataError, match="could not be downloaded.*503.*network"):
        B.benchmark("cifar10", root=tmp_path)
    assert os.listdir(tmp_path) == []


def test_no_network(server, tmp_path, monkeypatch):
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "url", "http://127.0.0.1:9/cifar-10-python.tar.gz")
    with pytest.raises(B.DataError, match="could not be downloaded.*copy a cifar10.npz"):
        B.benchmark("cifar10", root=tmp_path)
    assert os.listdir(tmp_path) == []


OK = b"HTTP/1.1 200 OK\r\n"
LOST, HARMED = "could not be downloaded", "fails torchvision's checksum"


@pytest.mark.parametrize("answer,told", [
    (OK + b"Transfer-Encoding: chunked\r\n\r\nff\r\nabc", LOST),  # IncompleteRead
    (OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nabc", LOST),
    (b"\x05\x00 x\r\n\r\n", LOST),  # BadStatusLine
    (OK + b"X: " + b"a" * 70_000 + b"\r\n\r\n", LOST),  # LineTooLong
    (OK + b"X: 1\r\n" * 200 + b"\r\n", LOST),  # too many headers
    (b"HTTP/1.1 abc\r\n\r\n", LOST),
    (b"", LOST),  # RemoteDisconnected
    (None, LOST),  # a server that says nothing
    (OK, LOST),  # and one that stops talking
    (OK + b"Content-Length: 1000\r\n\r\nabc", HARMED),
    (OK + b"Content-Length: 2\r\n\r\nabcdef", HARMED),
    (OK + b"\r\n", HARMED),
    (OK + b"\r\n<html>Please log in to the network</html>", HARMED),
    (b"HTTP/1.1 302 Found\r\nLocation: /again\r\n\r\n", LOST),
    (b"HTTP/1.1 302 Found\r\nLocation: file:///etc/passwd\r\n\r\n", LOST),
    (b"HTTP/1.1 302 Found\r\nLocation: http://[\r\n\r\n", LOST),
    (b"HTTP/1.1 301 Moved\r\nLocation: http://127.0.0.1:9/x\r\n\r\n", LOST),
    (b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", LOST),
    (b"HTTP/1.1 429 Too Many Requests\r\n\r\n", LOST),
    (b"HTTP/1.1 204 No Content\r\n\r\n", HARMED),
], ids=range(20))  # fmt: skip
def test_whatever_a_server_or_a_proxy_answers_is_told(server, tmp_path, monkeypatch, answer, told):
    monkeypatch.setattr(B, "SILENCE", 0.3)
    listening, held = socket.create_server(("127.0.0.1", 0)), []
    address = f"http://127.0.0.1:{listening.getsockname()[1]}"

    def serve():
        while True:
            try:
                one, _ = listening.accept()
            except OSError:
                return
            one.recv(4096)
            one.sendall(answer or b"")
            if answer in (None, OK):
                held.append(one)  # open, and silent
            else:
                one.close()

    threading.Thread(target=serve, daemon=True).start()
    cifar = torchvision.datasets.CIFAR10
    monkeypatch.setattr(cifar, "url", f"{address}/{cifar.filename}")
    try:
        with pytest.raises(B.DataError, match=rf"{told}.*(call again|copy a cifar10.npz)"):
            B.benchmark("cifar10", root=tmp_path)
    finally:
        listening.close()
        for one in held:
            one.close()
    assert os.listdir(tmp_path) == [] and socket.getdefaulttimeout() is None


def pack(server, monkeypatch, body):
    """Serve this, with its own checksum."""
    server.body = body
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "tgz_md5", md5(body).hexdigest())


BROKEN = {"empty": b"", "no archive": b"no archive", "a head": b"\x1f\x8b\x08\x00"}
BROKEN["no tar"] = gzip.compress(b"no tar" * 999)


@pytest.mark.parametrize("body", BROKEN.values(), ids=BROKEN)  # named: gzip writes the second into its bytes
def test_an_archive_that_cannot_be_unpacked_is_told(server, tmp_path, monkeypatch, body):
    pack(server, monkeypatch, body)
    with pytest.raises(B.DataError, match="incomplete or fails.*Nothing was kept"):
        B.benchmark("cifar10", root=tmp_path)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("code,message", [(errno.ENOSPC, "disk of .* is full"), (errno.EFBIG, "disk of .* is full"),
                                          (errno.EDQUOT, "disk of .* is full"), (errno.EROFS, "cannot be written to")])
def test_disk_full_while_unpacking(server, tmp_path, monkeypatch, code, message):
    def full(*_, **__):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(tarfile.TarFile, "extractall", full)
    with pytest.raises(B.DataError, match=f"{message}.*LABCODE_DATA"):
        B.benchmark("cifar10", root=tmp_path)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("error,told", [(AttributeError("data"), "could not provide cifar10 .AttributeError: data"),
                                        (pickle.UnpicklingError("x"), "incomplete or fails"),
                                        (UnicodeError("label too long"), LOST)])
def test_what_nobody_foresaw_is_told_too(server, tmp_path, monkeypatch, error, told):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(torchvision.datasets, "CIFAR10", fail)
    with pytest.raises(B.DataError, match=told):
        B.benchmark("cifar10", root=tmp_path)


def test_disk_full_while_downloading(server, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torchvision.datasets, "CIFAR10", full)
    with pytest.raises(B.DataError, match="disk of .* is full"):
        B.benchmark("cifar10", root=tmp_path)


@pytest.mark.parametrize("name", ["cifar100", "fashion_mnist", "stl10", "svhn"])
def test_each_torchvision_class_is_converted(name, tmp_path, monkeypatch):
    """The layouts of the other classes: planes first for STL-10 and SVHN, grey tensors for Fashion-MNIST."""
    made, spec = arrays(name), B.SPECS[name]

    def dataset(root, download, train=None, split=None):
        assert download and (train is None) == (name in ("stl10", "svhn"))
        part = split or ("train" if train else "test")
        images, labels = made[f"{part}_images"], made[f"{part}_labels"]
        if name in ("stl10", "svhn"):
            return SimpleNamespace(data=images.transpose(0, 3, 1, 2), labels=labels.astype(np.uint8))
        if name == "fashion_mnist":
            return SimpleNamespace(data=torch.from_numpy(images[..., 0]), targets=torch.from_numpy(labels))
        return SimpleNamespace(data=images, targets=labels.tolist(), classes=made["class_names"].tolist())

    monkeypatch.setattr(torchvision.datasets, spec.dataset, dataset)
    monkeypatch.setattr(B, "_download", DOWNLOAD)
    monkeypatch.setattr(B.shutil, "disk_usage", lambda _: SimpleNamespace(free=1e12))
    data = B.benchmark(name, root=tmp_path)
    assert torch.equal(data.train_images, torch.from_numpy(made["train_images"]).permute(0, 3, 1, 2))
    assert data.test_labels.tolist() == made["test_labels"].tolist() and len(data.class_names) == spec.classes
