from __future__ import annotations

import itertools
import logging
import shutil
import ssl
import time
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.contract.certificates import Authority, Pair
from tests.contract.faults import wait_until
from vaultauthz import server_tls
from vaultauthz.config.values import ServerTls
from vaultauthz.server_tls import FollowedTls, UnusableError

_numbers = itertools.count(1)


class Files:
    """The files of a server, which can be replaced; ``tls`` follows them by the clock ``now``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = Authority(folder)
        self.paths = ServerTls(folder / "tls.crt", folder / "tls.key", folder / "ca.crt")
        self.now = time.time()
        self.put(self.issue())
        self.put_ca(self.authority.ca)

    def issue(self, *, hours: float = 1) -> Pair:
        return self.authority.issue(f"n{next(_numbers)}.test", hours=hours)

    def put(self, pair: Pair) -> Pair:
        shutil.copyfile(pair.cert, self.paths.cert)
        shutil.copyfile(pair.key, self.paths.key)
        return pair

    def put_ca(self, ca: Path) -> None:
        assert self.paths.client_ca
        shutil.copyfile(ca, self.paths.client_ca)

    def followed(self, *, by_grpc: bool = False) -> FollowedTls:
        return FollowedTls("listen.grpc_tls", self.paths, lambda: self.now, by_grpc=by_grpc)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """A good certificate, its key and an authority of clients."""
    return Files(tmp_path)


# Kinds of keys: those that gRPC serves with and those it does not; held against grpcio by the contract tests.
SERVED: dict[str, Any] = {
    "rsa": lambda: rsa.generate_private_key(65537, 2048),
    "p256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "p384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "p521": lambda: ec.generate_private_key(ec.SECP521R1()),
}
NOT_SERVED: dict[str, Any] = {
    "ed25519": ed25519.Ed25519PrivateKey.generate,
    "secp256k1": lambda: ec.generate_private_key(ec.SECP256K1()),
    "brainpool": lambda: ec.generate_private_key(ec.BrainpoolP256R1()),
}


def cert_of(tls: FollowedTls) -> bytes:
    return tls.identity.cert


class TestTaken:
    def test_both_written_over(self, files: Files) -> None:
        """Whatever is good as a whole is taken at the next look; nothing is without a change."""
        tls = files.followed()
        before = tls.identity
        tls.look()
        assert (tls.identity, tls.taken) == (before, 0)
        pair = files.put(files.issue())
        tls.look()
        assert (cert_of(tls), tls.identity.key) == (pair.cert.read_bytes(), pair.key.read_bytes())
        assert (tls.taken, tls.refused, tls.trouble) == (1, 0, "")

    def test_a_link_is_moved(self, tmp_path: Path) -> None:
        """As Kubernetes does: the names stay, what is behind them changes at one moment."""
        authority = Authority(tmp_path)
        pairs = [authority.issue("one.test"), authority.issue("two.test")]
        for number, pair in enumerate(pairs):
            (tmp_path / f"..{number}").mkdir()
            shutil.copyfile(pair.cert, tmp_path / f"..{number}" / "tls.crt")
            shutil.copyfile(pair.key, tmp_path / f"..{number}" / "tls.key")
        (tmp_path / "..data").symlink_to("..0")
        for name in ("tls.crt", "tls.key"):
            (tmp_path / name).symlink_to(f"..data/{name}")
        tls = FollowedTls("x", ServerTls(tmp_path / "tls.crt", tmp_path / "tls.key"))
        (tmp_path / "..new").symlink_to("..1")
        (tmp_path / "..new").replace(tmp_path / "..data")
        tls.look()
        assert cert_of(tls) == pairs[1].cert.read_bytes()

    def test_with_a_byte_order_mark(self, files: Files) -> None:
        """As an editor of Windows leaves one before each of them: neither library gets to see it."""
        tls = files.followed()
        pair = files.put(files.issue())
        for path in (files.paths.cert, files.paths.key, files.paths.client_ca):
            assert path
            path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
        tls.look()
        assert (cert_of(tls), tls.identity.key) == (pair.cert.read_bytes(), pair.key.read_bytes())
        assert tls.identity.client_ca == files.authority.ca.read_bytes()

    def test_the_authorities_alone(self, files: Files) -> None:
        """Who may connect changes with the same certificate, too."""
        tls = files.followed()
        (files.folder / "other").mkdir()
        other = Authority(files.folder / "other")
        files.put_ca(other.ca)
        tls.look()
        assert tls.identity.client_ca == other.ca.read_bytes()

    def test_within_one_tick_of_the_file_system(
        self, files: Files, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A second write that no stamp tells from the first is seen as well."""
        tls = files.followed()
        stamps = server_tls._stamps(files.paths)
        monkeypatch.setattr(server_tls, "_stamps", lambda _: stamps)
        for _ in range(3):
            pair = files.put(files.issue())
            tls.look()
            assert cert_of(tls) == pair.cert.read_bytes()

    def test_what_has_settled_is_not_read_again(
        self, files: Files, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Each new connection of the admin address looks: that costs three stat calls."""
        tls = files.followed()
        files.now += 60
        tls.look()
        monkeypatch.setattr(Path, "read_bytes", lambda _: pytest.fail("a file was read"))
        tls.look()


class TestRefused:
    def refused(self, files: Files, tls: FollowedTls, caplog: pytest.LogCaptureFixture) -> str:
        """What is told of files that are not taken: once, at the second look, and not again."""
        before = tls.identity
        caplog.clear()
        tls.look()
        assert (caplog.messages, tls.trouble) == ([], "")
        tls.look()
        tls.look()
        assert tls.identity is before
        assert (tls.taken, tls.refused) == (0, 1)
        (line,) = caplog.messages
        assert line == (
            "listen.grpc_tls: not taken, the certificate before stays in use: " + tls.trouble
        )
        return tls.trouble.replace(f"{files.folder}/", "")

    def test_half_a_pair(self, files: Files, caplog: pytest.LogCaptureFixture) -> None:
        """A certificate whose key has not come yet; when it has, both are taken."""
        tls = files.followed()
        pair = files.issue()
        shutil.copyfile(pair.cert, files.paths.cert)
        assert self.refused(files, tls, caplog) == "tls.key is not the key of tls.crt"
        shutil.copyfile(pair.key, files.paths.key)
        tls.look()
        assert (cert_of(tls), tls.trouble) == (pair.cert.read_bytes(), "")

    def test_ended(self, files: Files, caplog: pytest.LogCaptureFixture) -> None:
        """It would be refused by everybody."""
        tls = files.followed()
        files.put(files.issue(hours=-0.5))
        assert self.refused(files, tls, caplog).startswith("tls.crt has ended (20")

    def test_not_yet_valid(self, files: Files, caplog: pytest.LogCaptureFixture) -> None:
        """It is taken when its time has come, though no file changes."""
        tls = files.followed()
        pair = files.put(files.issue())
        files.now -= 2 * 3600
        assert self.refused(files, tls, caplog).startswith("tls.crt is valid from 20")
        files.now += 2 * 3600
        tls.look()
        assert cert_of(tls) == pair.cert.read_bytes()

    def test_authorities_that_have_ended(
        self, files: Files, caplog: pytest.LogCaptureFixture
    ) -> None:
        """With them nobody could connect; one that is good among them is enough."""
        tls = files.followed()
        (files.folder / "other").mkdir()
        long = Authority(files.folder / "other", hours=24)
        files.put_ca(Authority(files.folder / "other", "short", hours=-0.5).ca)
        told = self.refused(files, tls, caplog)
        assert told == "ca.crt: every authority in it has ended"
        ended = (files.folder / "other" / "short.pem").read_bytes()
        assert files.paths.client_ca
        files.paths.client_ca.write_bytes(ended + long.ca.read_bytes())
        tls.look()
        assert tls.taken == 1

    @pytest.mark.parametrize(
        ("file", "told"),
        [
            ("tls.crt", "tls.crt and tls.key are no certificate with its key in clear: "),
            ("tls.key", "tls.crt and tls.key are no certificate with its key in clear: "),
            ("ca.crt", "ca.crt is no list of authorities: "),
        ],
    )
    @pytest.mark.parametrize("text", ["", "no PEM", "-----BEGIN CERTIFICATE-----\nAAAA\n"])
    def test_no_pem(
        self, files: Files, caplog: pytest.LogCaptureFixture, file: str, told: str, text: str
    ) -> None:
        """The file is named, and nothing of what is in it."""
        tls = files.followed()
        (files.folder / file).write_text(text)
        assert self.refused(files, tls, caplog).startswith(told)
        assert "AAAA" not in tls.trouble

    @pytest.mark.parametrize("file", ["tls.crt", "tls.key", "ca.crt"])
    def test_gone(self, files: Files, caplog: pytest.LogCaptureFixture, file: str) -> None:
        """Also where the whole folder is."""
        tls = files.followed()
        (files.folder / file).unlink()
        assert self.refused(files, tls, caplog) == f"cannot read {file}: No such file or directory"

    def test_a_key_with_a_password(self, files: Files, caplog: pytest.LogCaptureFixture) -> None:
        """OpenSSL would ask for it at the terminal."""
        tls = files.followed()
        pair = files.put(files.issue())
        key = serialization.load_pem_private_key(pair.key.read_bytes(), None)
        files.paths.key.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.BestAvailableEncryption(b"word"),
            )
        )
        assert "its key in clear" in self.refused(files, tls, caplog)

    def test_one_that_changes_while_it_is_read(
        self, files: Files, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """OpenSSL reads the files a second time: what it checked must be what is shown."""
        tls = files.followed()
        before = tls.identity
        checked, first, second = server_tls._context, files.issue(), files.issue()

        def checked_late(paths: ServerTls) -> ssl.SSLContext:
            files.put(second)
            return checked(paths)

        files.put(first)
        with monkeypatch.context() as patched:
            patched.setattr(server_tls, "_context", checked_late)
            tls.look()
        assert tls.identity is before
        tls.look()
        assert cert_of(tls) == second.cert.read_bytes()

    def test_the_one_before_is_put_back(
        self, files: Files, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Then all is well again."""
        tls = files.followed()
        good = files.paths.cert.read_bytes()
        files.paths.cert.write_text("")
        self.refused(files, tls, caplog)
        files.paths.cert.write_bytes(good)
        tls.look()
        assert (tls.trouble, tls.taken) == ("", 0)

    @settings(
        max_examples=60,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )
    @given(file=st.sampled_from(["tls.crt", "tls.key", "ca.crt"]), part=st.floats(0, 0.95))
    def test_a_file_that_is_being_written(self, files: Files, file: str, part: float) -> None:
        """Cut anywhere, nothing of it is taken."""
        files.put(files.issue())
        files.put_ca(files.authority.ca)
        tls = files.followed()
        before = tls.identity
        pair = files.put(files.issue())
        text = {"tls.crt": pair.cert, "tls.key": pair.key, "ca.crt": files.authority.ca}[file]
        whole = text.read_bytes()
        (files.folder / file).write_bytes(whole[: int(len(whole) * part)])
        tls.look()
        assert tls.identity is before
        (files.folder / file).write_bytes(whole)
        tls.look()
        assert cert_of(tls) == pair.cert.read_bytes()

    @pytest.mark.parametrize("kind", NOT_SERVED)
    def test_a_key_that_grpc_does_not_serve_with(
        self, files: Files, caplog: pytest.LogCaptureFixture, kind: str
    ) -> None:
        """It would go on with the one before, to its end, and say nothing; others may serve with it."""
        tls, others = files.followed(by_grpc=True), files.followed()
        before = tls.identity
        files.put(files.authority.issue("n.test", key=NOT_SERVED[kind]()))
        assert tls.reread() == f"listen.grpc_tls not taken: {tls.trouble}"
        assert "does not serve with" in tls.trouble
        assert tls.identity is before
        assert "RSA" in caplog.text
        others.look()
        assert others.taken == 1

    @pytest.mark.parametrize("kind", SERVED)
    def test_keys_that_grpc_serves_with(self, files: Files, kind: str) -> None:
        """They are taken."""
        tls = files.followed(by_grpc=True)
        files.put(files.authority.issue("n.test", key=SERVED[kind]()))
        tls.look()
        assert (tls.taken, tls.trouble) == (1, "")

    def test_a_form_that_only_openssl_reads(self, files: Files) -> None:
        """Its TRUSTED CERTIFICATE, as `openssl x509 -trustout` writes it."""
        tls = files.followed(by_grpc=True)
        pair = files.put(files.issue())
        text = pair.cert.read_text().replace(" CERTIFICATE", " TRUSTED CERTIFICATE")
        files.paths.cert.write_text(text)
        assert tls.reread()
        assert "a form that only OpenSSL reads" in tls.trouble

    def test_authorities_that_are_none(self, files: Files) -> None:
        """A revocation list alone satisfies OpenSSL, and nobody could connect."""
        tls = files.followed()
        assert files.paths.client_ca
        files.paths.client_ca.write_bytes(files.authority.revoked())
        assert "it has no certificate" in tls.reread()
        files.paths.client_ca.write_bytes(
            files.authority.revoked() + files.authority.ca.read_bytes()
        )
        assert tls.reread() == "listen.grpc_tls replaced"


class TestStart:
    def test_one_that_is_not_valid_yet(
        self, files: Files, caplog: pytest.LogCaptureFixture
    ) -> None:
        """It is served, since only time is missing, and told."""
        files.now -= 2 * 3600
        files.followed()
        (line,) = caplog.messages
        assert "until then nobody can connect" in line

    def test_one_that_cannot_be_used(self, files: Files) -> None:
        """Nothing is before it that could stay in use."""
        files.paths.key.write_text("x")
        with pytest.raises(UnusableError, match="no certificate with its key"):
            files.followed()

    def test_one_that_has_ended(self, files: Files, caplog: pytest.LogCaptureFixture) -> None:
        """It is served and told, and the next one takes its place without a restart."""
        files.put(files.issue(hours=-0.5))
        tls = files.followed()
        assert tls.ended
        (line,) = caplog.messages
        assert "nobody new can connect" in line
        files.put(files.issue())
        tls.look()
        assert not tls.ended


def test_the_end_of_what_is_in_use(files: Files, caplog: pytest.LogCaptureFixture) -> None:
    """It is told once, also of a file that has not changed for long."""
    tls = files.followed()
    assert 3000 < tls.seconds_left < 3601
    files.now += 60
    tls.look()
    assert caplog.messages == []
    files.now += 3600
    tls.look()
    tls.look()
    assert len(caplog.messages) == 1
    assert tls.ended


def test_what_a_reload_is_told(files: Files, caplog: pytest.LogCaptureFixture) -> None:
    """Replaced since the last time, also by itself; or why not, at once."""
    caplog.set_level(logging.WARNING)
    tls = files.followed()
    assert tls.reread() == ""
    files.put(files.issue())
    tls.look()
    assert tls.reread() == "listen.grpc_tls replaced"
    assert tls.reread() == ""
    files.paths.cert.write_text("")
    assert tls.reread().startswith(f"listen.grpc_tls not taken: {files.paths.cert}")
    assert len(caplog.messages) == 1


def test_it_looks_by_itself(files: Files) -> None:
    """From start to stop."""
    tls = files.followed()
    tls.start()
    try:
        pair = files.put(files.issue())
        assert wait_until(lambda: cert_of(tls) == pair.cert.read_bytes())
    finally:
        tls.stop()
