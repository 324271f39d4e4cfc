"""Shows attrs classes and roles in the reference: Griffe reads sources, and knows dataclasses and Markdown only."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from griffe import (
    Attribute,
    Class,
    Expr,
    ExprCall,
    ExprKeyword,
    Extension,
    Function,
    Module,
    Object,
    Parameter,
    ParameterKind,
    Parameters,
)


class AttrsExtension(Extension):
    """Gives classes under ``@frozen`` the ``__init__`` that attrs makes, and writes ``:func:`x``` as code."""

    def on_package(self, *, pkg: Module, **_: Any) -> None:
        """Visit every class once the whole package is read, so that its parents are known."""
        for found in list(_members(pkg)):
            if found.docstring is not None:
                found.docstring.value = re.sub(
                    r":\w+:(?=`)|^::$", "", found.docstring.value, flags=re.MULTILINE
                )
            if isinstance(found, Class) and _is_attrs(found) and "__init__" not in found.members:
                init = Function("__init__", parameters=Parameters(*_parameters(found)))
                found.set_member("__init__", init)


def _members(parent: Module | Class) -> Iterator[Object]:
    yield parent
    for member in parent.members.values():
        if isinstance(member, Module | Class):
            yield from _members(member)
        elif isinstance(member, Object):
            yield member


def _is_attrs(cls: Class) -> bool:
    return _is_decorated(cls) or any(map(_is_decorated, cls.mro()))


def _is_decorated(cls: Class) -> bool:
    values = [decorator.value for decorator in cls.decorators]
    return any(isinstance(v, Expr) and v.canonical_path.startswith("attrs.") for v in values)


def _parameters(cls: Class) -> list[Parameter]:
    found: dict[str, Parameter] = {}
    for owner in filter(_is_decorated, (*reversed(cls.mro()), cls)):
        for name, member in owner.members.items():
            if isinstance(member, Attribute) and member.annotation is not None:
                found[name] = _parameter(member)
    kinds = list(ParameterKind)
    return sorted(found.values(), key=lambda p: kinds.index(p.kind or kinds[0]))


def _parameter(attribute: Attribute) -> Parameter:
    value, kind = attribute.value, ParameterKind.positional_or_keyword
    if isinstance(value, ExprCall) and str(value.function) == "field":
        given: Mapping[str, Any] = {a.name: a.value for a in value.arguments if isinstance(a, ExprKeyword)}
        value = given.get("default", "..." if "factory" in given else None)
        if str(given.get("kw_only")) == "True":
            kind = ParameterKind.keyword_only
    return Parameter(attribute.name, annotation=attribute.annotation, kind=kind, default=value)
