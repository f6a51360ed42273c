"""Write a config as YAML, and read YAML files with errors that name line and column."""

import re
import stat
from pathlib import Path
from typing import Any

import yaml

from loraft.config.names import show
from loraft.config.schema import Config
from loraft.config.section import BareWord, WrittenFloat, WrittenInt
from loraft.errors import ConfigError
from loraft.visible import visible

LONGEST = 10_000_000  # bytes of a config file
MOST_VALUES = 100_000  # values in a config, after aliases are followed: aliases of aliases can stand for millions
DEEPEST = 50  # levels of lists and mappings; PyYAML reads each by recursion


def dump_config(config: Config) -> str:
    """The whole config as YAML, from which `load_config` makes an equal one.

    Examples:
        >>> import loraft
        >>> print(loraft.dump_config(loraft.resolve()).splitlines()[0])
        preset: quickstart
    """
    text = yaml.dump(config.model_dump(), Dumper=Dumper, allow_unicode=True, sort_keys=False, width=120)
    return visible(text)  # what PyYAML leaves of control characters stands in double quotes, where escapes are read


def read_mapping(path: Path) -> dict[str, Any]:
    """The YAML mapping in a file; empty for an empty file.

    Raises:
        ConfigError: the file is missing, no file, too long, not UTF-8, not YAML, not a mapping, or has a key twice.
    """
    try:
        if not stat.S_ISREG((state := path.stat()).st_mode):  # a pipe without a writer would never end
            raise ConfigError(f"{path}: exists, but is no file; give a YAML file")
        if state.st_size > LONGEST:
            raise ConfigError(f"{path}: too long for a config (got {state.st_size:,} bytes); at most {LONGEST:,}")
        values = parse(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); give a YAML file") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not UTF-8 text; save it as UTF-8") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML ({yaml_problem(error)}); correct it there") from None
    except RecursionError:
        raise ConfigError(f"{path}: not a config (nested too deeply); correct it there") from None
    except ValueError as error:  # a number of thousands of digits, a date that does not exist
        raise ConfigError(f"{path}: not a config ({str(error).partition(';')[0]}); correct it there") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: not a mapping (got {show(values)}); write `key: value` lines")
    return values


def parse(text: str) -> Any:
    """The value of a YAML text.

    Raises:
        yaml.YAMLError: it has none; nothing else is raised, whatever the text.
    """
    try:
        return yaml.load(text, Loader=Loader)
    except yaml.reader.ReaderError as error:
        raise yaml.YAMLError(f"YAML does not allow the character U+{error.character:04X}") from None


def yaml_problem(error: yaml.YAMLError) -> str:
    """Line, column and problem of a YAML error, shortened; its whole text where it has no position."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        problem = str(error.problem)
        problem = problem if len(problem) <= 150 else problem[:147] + "..."
        return f"line {error.problem_mark.line + 1}, column {error.problem_mark.column + 1}: {problem}"
    return " ".join(str(error).split())


class Loader(yaml.SafeLoader):
    """SafeLoader that refuses a repeated key, and reads words and numbers as YAML 1.2 does.

    PyYAML would silently keep the last value of a repeated key. It follows YAML 1.1, where off is false, 016 is 14,
    1:30 is 90 and 1e-4 is text; here these are text, 16, text and a number. `Dumper` quotes every text that one of the
    two reads as something else, so that both kinds of reader agree on what it writes. Numbers keep their text, which a
    setting that is text takes: 08 and 1e3 were not quoted by PyYAML, in the files of earlier versions.

    Source:
        YAML 1.2.2, section 10.3.2, the core schema.
    """

    def __init__(self, stream: Any) -> None:
        super().__init__(stream)
        self.depth = 0
        self.sizes: dict[yaml.Node, int] = {}  # values in each composed node, those of aliases counted again

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Composes the node as PyYAML does, but for deep nesting and for aliases that stand for too much."""
        event: yaml.Event = self.peek_event()  # type: ignore[no-untyped-call]
        self.depth += 1
        if self.depth > DEEPEST:
            raise _refused(f"more than {DEEPEST} levels of lists and mappings", event.start_mark)
        node = super().compose_node(parent, index)
        self.depth -= 1
        if isinstance(event, yaml.AliasEvent) and node not in self.sizes:
            raise _refused("an alias inside of its own value", event.start_mark)
        if node is not None and node not in self.sizes:
            inside = node.value if isinstance(node, yaml.CollectionNode) else []
            parts = [part for pair in inside for part in (pair if isinstance(pair, tuple) else [pair])]
            self.sizes[node] = 1 + sum(self.sizes[part] for part in parts)
            if self.sizes[node] > MOST_VALUES:
                raise _refused(f"more than {MOST_VALUES:,} values", event.start_mark)
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """Constructs the value as PyYAML does; what does not fit its tag, such as `!!int a`, is a YAML error."""
        try:
            return super().construct_object(node, deep)
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
            problem = f"is no value of {node.tag.replace('tag:yaml.org,2002:', '!!')}"
            raise _refused(problem, node.start_mark) from None

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Builds the mapping as PyYAML does, after a check for repeated keys."""
        seen = set()
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise _refused(f"the key {show(key.value)} twice", key.start_mark)
            seen.add(key.value if isinstance(key, yaml.ScalarNode) else None)
        return super().construct_mapping(node, deep)


def _refused(problem: str, mark: Any) -> yaml.MarkedYAMLError:
    return yaml.constructor.ConstructorError(None, None, problem, mark)


class Dumper(yaml.SafeDumper):
    """SafeDumper that writes text of several lines as a block, so that prompts stay readable."""


def _construct_int(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> WrittenInt | str:
    if len(node.value) > 4000:  # Python reads 4,300 digits; a setting that is text may have more
        return str(node.value)
    number = WrittenInt(node.value, {"0o": 8, "0x": 16}.get(node.value[:2], 10))
    number.written = node.value
    return number


def _construct_float(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> WrittenFloat:
    number = WrittenFloat(loader.construct_yaml_float(node))
    number.written = node.value
    return number


def _construct_text(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> str:
    is_bare = node.style is None and node.value.lower() in ("yes", "no", "on", "off")
    return BareWord(node.value) if is_bare else str(node.value)


# Of YAML 1.1, null and the merge key stay.
Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag.endswith(("null", "merge"))]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
for kind, pattern, firsts in (
    ("bool", r"[tT]rue|TRUE|[fF]alse|FALSE", "tTfF"),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+.0123456789",
    ),
):
    for reader_or_writer in (Loader, Dumper):
        reader_or_writer.add_implicit_resolver(f"tag:yaml.org,2002:{kind}", re.compile(f"(?:{pattern})$"), list(firsts))
# Sets have no order, and dates are no values of a config: only the tags of the core schema are read.
CORE = {f"tag:yaml.org,2002:{kind}" for kind in ("null", "bool", "int", "float", "str", "seq", "map")}
Loader.yaml_constructors = {
    tag: made for tag, made in yaml.SafeLoader.yaml_constructors.items() if tag in {None, *CORE}
}
Loader.add_constructor("tag:yaml.org,2002:int", _construct_int)
Loader.add_constructor("tag:yaml.org,2002:float", _construct_float)
Loader.add_constructor("tag:yaml.org,2002:str", _construct_text)


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    lines = text.replace("\n", "")
    # Rare line breaks such as U+0085 do not survive PyYAML's dump and load, unless it escapes them in double quotes.
    style = '"' if lines and not lines.isprintable() else "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


def _represent_number(dumper: yaml.SafeDumper, number: WrittenInt | WrittenFloat) -> yaml.ScalarNode:
    kind = "int" if isinstance(number, WrittenInt) else "float"
    return dumper.represent_scalar(f"tag:yaml.org,2002:{kind}", number.written)


Dumper.add_representer(str, _represent_text)
Dumper.add_representer(BareWord, _represent_text)
Dumper.add_representer(WrittenInt, _represent_number)
Dumper.add_representer(WrittenFloat, _represent_number)
