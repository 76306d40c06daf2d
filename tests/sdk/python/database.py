"""A PostgreSQL server of a test's own, from Debian's package, which can be stopped and started again."""

import os
import subprocess
from pathlib import Path

USER = 1_000
NOBODY = 65_534


def program(name: str) -> str:
    """Where a program of the server is: Debian keeps them beside the server's version."""
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return str(found[-1]) if found else name


def unprivileged(folder: Path) -> list:
    """What a command is run by so that it is not root, whom the server refuses: a namespace, or another user."""
    if os.geteuid() != 0:
        return []
    within = ["unshare", "--user", f"--map-user={USER}"]
    if subprocess.run([*within, "true"], capture_output=True, check=False).returncode == 0:
        return within
    for place in [folder, *folder.parents]:
        if place.owner() == "root" and place.stat().st_mode & 0o011 == 0:
            place.chmod(0o711)
    os.chown(folder, NOBODY, NOBODY)
    return ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]


class Database:
    """One cluster with one database for Muster, on a socket in its folder."""

    def __init__(self, folder: Path):
        folder.mkdir()
        self.folder = folder
        self.runner = unprivileged(folder)
        self.address = f"host={folder} user=muster dbname=postgres"
        cluster = ["-D", str(folder / "data"), "-U", "muster", "-A", "trust", "-E", "UTF8", "--locale=C"]
        self.run("initdb", *cluster, "--no-instructions")

    def run(self, name: str, *arguments: str):
        """Runs a program of the server to its end."""
        command = [*self.runner, program(name), *arguments]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, cwd="/")
        assert done.returncode == 0, done.stdout

    def start(self):
        """Starts the server and waits until it takes connections."""
        options = f"-c listen_addresses= -c unix_socket_directories={self.folder}"
        log = str(self.folder / "log")
        self.run("pg_ctl", "start", "--wait", "-D", str(self.folder / "data"), "-o", options, "-l", log)

    def stop(self):
        """Stops the server, whoever is connected."""
        self.run("pg_ctl", "stop", "--wait", "-D", str(self.folder / "data"), "--mode", "fast")
