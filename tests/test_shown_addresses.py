"""A storage's address as it is printed, and written to study.md and MLflow: without its password."""

import pytest
import storage


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("postgresql://me:secret@host/db", "postgresql://me:***@host/db"),
        ("postgresql://host/db?user=me&password=secret", "postgresql://host/db?password=hidden&user=me"),
        ("postgresql://host/db?sslpassword=secret", "postgresql://host/db?sslpassword=hidden"),
        ("sqlite:///optuna.db", "sqlite:///optuna.db"),
        ("postgresql://me:secret@host:port/db", "postgresql"),
        ("secret", "secret"),
    ],
)
def test_no_password_is_shown(address, shown):
    assert storage.shown(address) == shown


@pytest.mark.parametrize(
    "address", ["postgresql://me:secret@host:port/db", "postgresql://127.0.0.1:1/db?password=secret"]
)
def test_an_address_that_cannot_be_used_is_refused_without_its_password(address):
    with pytest.raises(ValueError, match=r"--storage postgresql.*no study can be kept there") as refused:
        storage.open_storage(address, 1)
    assert "secret" not in str(refused.value)
