"""A bare repository with the manifest of one Deployment, as a GitOps controller follows it."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import yaml

BRANCH = "main"
FOLDER = "apps/shop"


def manifest(namespace: str, name: str, image: str) -> str:
    """A Deployment as it stands in the repository."""
    labels = {"app.kubernetes.io/name": name}
    container = {"name": "app", "image": image}
    return yaml.safe_dump(
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": name, "namespace": namespace, "labels": labels},
            "spec": {
                "replicas": 2,
                "selector": {"matchLabels": labels},
                "template": {
                    "metadata": {"labels": labels},
                    "spec": {"containers": [container]},
                },
            },
        }
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class GitRepository:
    """The bare repository and a checkout in which people work."""

    bare: Path
    checkout: Path
    namespace: str
    name: str
    images: dict[str, str | None] = field(default_factory=dict)
    """What was read of each commit."""

    @staticmethod
    def create(folder: Path, namespace: str, name: str) -> GitRepository:
        """With one commit that is not a release."""
        bare, checkout = folder / "shop.git", folder / "checkout"
        git(folder, "init", "--quiet", "--bare", "--initial-branch", BRANCH, str(bare))
        git(folder, "clone", "--quiet", str(bare), str(checkout))
        git(checkout, "checkout", "--quiet", "-B", BRANCH)
        found = GitRepository(bare=bare, checkout=checkout, namespace=namespace, name=name)
        (checkout / "README").write_text("The services of the shop.\n")
        found._push("Start")
        return found

    def release(self, image: str) -> str:
        """A person changes the image on the branch; the commit."""
        folder = self.checkout / FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "deployment.yaml").write_text(manifest(self.namespace, self.name, image))
        return self._push(f"Release {image}")

    def _push(self, message: str) -> str:
        git(self.checkout, "add", "--all")
        git(self.checkout, "commit", "--quiet", "-m", message)
        git(self.checkout, "push", "--quiet", "origin", f"HEAD:{BRANCH}")
        return git(self.checkout, "rev-parse", "HEAD")

    def merge(self, branch: str) -> str:
        """A person merges a proposed branch; the commit that the branch then names."""
        git(self.checkout, "fetch", "--quiet", "origin")
        git(self.checkout, "merge", "--quiet", "--no-edit", f"origin/{branch}")
        git(self.checkout, "push", "--quiet", "origin", f"HEAD:{BRANCH}")
        return self.head()

    def head(self) -> str:
        return (self.bare / "refs" / "heads" / BRANCH).read_text().strip()

    def branches(self) -> list[str]:
        """The branches other than the followed one."""
        found = git(self.bare, "for-each-ref", "--format=%(refname:short)", "refs/heads").split()
        return [one for one in found if one != BRANCH]

    def image(self, revision: str) -> str | None:
        """What a revision asks for; None where it has no Deployment."""
        commit = self.head() if revision == BRANCH else revision
        if commit not in self.images:
            self.images[commit] = self._image(commit)
        return self.images[commit]

    def _image(self, revision: str) -> str | None:
        try:
            text = git(self.bare, "show", f"{revision}:{FOLDER}/deployment.yaml")
        except subprocess.CalledProcessError:
            return None
        image: str = yaml.safe_load(text)["spec"]["template"]["spec"]["containers"][0]["image"]
        return image


def git(folder: Path, *arguments: str) -> str:
    """The output of a git command, with a fixed identity."""
    who = {f"GIT_{role}_{part}": value for role in ("AUTHOR", "COMMITTER") for part, value in _PERSON.items()}
    env = {"PATH": os.defpath, "HOME": str(folder), "GIT_CONFIG_NOSYSTEM": "1", **who}
    done = subprocess.run(
        ["git", *arguments], cwd=folder, env=env, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


_PERSON = {"NAME": "Ann", "EMAIL": "ann@example.com"}
