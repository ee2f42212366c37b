"""Fresh random strings: names, paths, flags and numbers that no model can have memorised."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

_ONSETS = (
    "b br c ch cl d dr f fl g gl gr h j k l m n p pl pr qu r s sh sk sl sp st t th tr v w z"
).split()
_VOWELS = "a e i o u ai ea ee oa oo ou".split()
_CODAS = "b ck d ft g k l lk ll m mp n nd ng nk p r rd rk rn s sk st t th x".split()
EXTENSIONS = (
    "py ts js go rs toml yaml json sql md txt cfg ini csv lock proto sh ex kt swift".split()
)


class Words:
    """Draws words from a given list or invents them; one instance per random stream."""

    def __init__(self, rng: random.Random, nouns: Sequence[str], tools: Sequence[str]) -> None:
        self._rng = rng
        self._nouns = nouns
        self._tools = tools

    def invented(self) -> str:
        """A pronounceable word that is in no dictionary."""
        rng = self._rng
        word = ""
        for _ in range(rng.choice((1, 2, 2))):
            word += rng.choice(_ONSETS) + rng.choice(_VOWELS)
            if rng.random() < 0.5:
                word += rng.choice(_CODAS)
        return word if len(word) > 2 else word + rng.choice(_CODAS)

    def word(self) -> str:
        """A lower-case word, listed or invented."""
        return self._rng.choice(self._nouns) if self._rng.random() < 0.6 else self.invented()

    def tool(self) -> str:
        """A short name of a command-line tool, listed or invented."""
        return self._rng.choice(self._tools) if self._rng.random() < 0.5 else self.invented()

    def joined(self, separator: str, least: int = 2, most: int = 3) -> str:
        """Two or three words joined by `separator`."""
        return separator.join(self.word() for _ in range(self._rng.randint(least, most)))

    def upper(self) -> str:
        """A ticket prefix: two to five capitals."""
        letters = self.invented().upper()
        return letters[: self._rng.randint(2, 5)]

    def number(self, low: int = 1, high: int = 9999) -> str:
        """An integer, short ones as likely as long ones."""
        digits = self._rng.randint(len(str(low)), len(str(high)))
        return str(min(max(self._rng.randrange(10 ** (digits - 1), 10**digits), low), high))

    def version(self) -> str:
        """A dotted version number."""
        return ".".join(self.number(1, 40) for _ in range(self._rng.choice((2, 3, 3))))

    def date(self) -> str:
        """An ISO date."""
        rng = self._rng
        return f"{rng.randint(2019, 2039)}-{rng.randint(1, 12):02d}-{rng.randint(1, 28):02d}"

    def directory(self) -> str:
        """A relative or absolute folder without a trailing slash."""
        parts = [
            self.joined("-") if self._rng.random() < 0.3 else self.word()
            for _ in range(self._rng.randint(1, 3))
        ]
        root = self._rng.choice(("", "", "", "./", "/var/", "/srv/", "/opt/", "/etc/", "~/"))
        return root + "/".join(parts)

    def file(self) -> str:
        """A relative file path with an extension."""
        stem = self.joined(self._rng.choice("-__"), 1, 2)
        path = f"{stem}.{self._rng.choice(EXTENSIONS)}"
        return f"{self.directory()}/{path}" if self._rng.random() < 0.6 else path

    def host(self) -> str:
        """A host name."""
        name = self.joined("-", 1, 2)
        domain = self._rng.choice(("internal", "example", "lan", "test", "corp.example", "local"))
        return f"{name}.{self.invented()}.{domain}"

    def literal(self, kind: str) -> str:
        """A fresh value of a literal's kind (port, path, env, ...); unknown kinds give a word."""
        make: dict[str, Callable[[], str]] = {
            "port": lambda: self.number(1024, 65535),
            "path": lambda: self.directory() if self._rng.random() < 0.5 else self.file(),
            "file": self.file,
            "dir": self.directory,
            "env": lambda: self.joined("_").upper(),
            "host": self.host,
            "url": lambda: f"https://{self.host()}/{self.word()}",
            "branch": lambda: (
                f"{self.word()}/{self.word()}" if self._rng.random() < 0.5 else self.joined("-")
            ),
            "user": lambda: self.joined(self._rng.choice("-_."), 1, 2),
            "channel": lambda: "#" + self.joined("-"),
            "table": lambda: self.joined("_"),
            "bucket": lambda: f"s3://{self.joined('-')}",
            "image": lambda: f"{self.word()}/{self.word()}:{self.version()}",
            "version": self.version,
            "label": lambda: self.joined(self._rng.choice("-:/"), 2, 2),
            "email": lambda: f"{self.word()}@{self.host()}",
            "number": self.number,
            "header": lambda: "X-" + self.joined("-").title(),
            "key": lambda: self.joined("."),
            "module": lambda: self.joined("."),
            "flagname": lambda: self.joined(self._rng.choice("-_.")),
            "flag": lambda: "--" + self.joined("-", 1, 2),
            "fixed": self.word,
        }
        return make.get(kind, self.word)()

    def parameter(self, kind: str) -> str:
        """A fresh value of a convention's parameter or input kind."""
        make: dict[str, Callable[[], str]] = {
            "Word": lambda: self.word().capitalize(),
            "WORD": self.upper,
            "num": self.number,
            "smallnum": lambda: self.number(1, 20),
            "slug": lambda: self.joined("-"),
            "snake": lambda: self.joined("_"),
            "date": self.date,
            "ext": lambda: self._rng.choice(EXTENSIONS),
            "dir": self.directory,
            "version": self.version,
            "Camel": lambda: "".join(self.word().capitalize() for _ in range(2)),
        }
        return make.get(kind, self.word)()
