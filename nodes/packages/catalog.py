"""What is published: packages, and each model's newest version, as far as they are believed.

Where the pipeline has an authority, only what an operator has sealed is; what is refused is counted at the border.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from nodes.config.sections import Config
from nodes.protocol.border import Border
from nodes.protocol.packages import MOST_PACKAGES, PublishedPackage, Seal, Version


@dataclass(slots=True)
class Catalog:
    """`packages` by digest; `on_version` is called once for each version whose package is known as well."""

    config: Config
    border: Border
    on_version: Callable[[Version, PublishedPackage], None]
    packages: dict[str, PublishedPackage] = field(default_factory=dict)
    _versions: dict[str, Version] = field(default_factory=dict)
    _reported: dict[str, Version] = field(default_factory=dict)

    def add_package(self, topic: str, package: PublishedPackage) -> bool:
        """Take a package that is published; returns False for one that is refused."""
        if package.digest not in self.packages and len(self.packages) >= MOST_PACKAGES:
            self.border.refuse(topic, f"{MOST_PACKAGES} packages are published, and this would be one more")
            return False
        if not self._is_sealed(topic, package.text(self.config.pipeline), package.seal):
            return False
        self.packages[package.digest] = package
        return True

    def remove_package(self, package: str) -> bool:
        """Take that it is published no more; returns False for one that is not known."""
        return self.packages.pop(package, None) is not None

    def add_version(self, topic: str, version: Version) -> None:
        """Take a version, unless a newer one of its model is known."""
        known = self._versions.get(version.model)
        if known is not None and version.number < known.number:
            self.border.refuse(topic, f"number: {known.number} or more, not {version.number}: an old message")
            return
        if self._is_sealed(topic, version.text(self.config.pipeline), version.seal):
            self._versions[version.model] = version
            self.report_versions()

    def remove_version(self, model: str) -> None:
        """Take that the model has no version any more."""
        self._versions.pop(model, None)

    def report_versions(self) -> None:
        """Call `on_version` for those that have become known with their packages."""
        for model, version in self._versions.items():
            package = self.packages.get(version.package)
            if package is not None and self._reported.get(model) != version:
                self._reported[model] = version
                self.on_version(version, package)

    def _is_sealed(self, topic: str, text: str, seal: Seal | None) -> bool:
        """True for what an operator has sealed; without an authority, whoever may write there is believed."""
        member = self.config.broker.credentials
        if member is None:
            return True
        from nodes.enrolment.seal import BadSeal, check

        try:
            if seal is None:
                raise BadSeal("no operator has sealed it")
            check(text, seal.signature, seal.certificate, member.authority, self.config.pipeline)
        except BadSeal as error:
            self.border.refuse(topic, str(error))
            return False
        return True
