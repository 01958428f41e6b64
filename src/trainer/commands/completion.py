"""`trainer completion`: scripts that let a shell complete the words of `trainer` on TAB."""

from __future__ import annotations

import json
import os
import shlex
import sys

from trainer.errors import UsageError, refusal, unknown
from trainer.terminal import completion
from trainer.terminal.completion import SHELLS

BASH = r"""# Completes the words of trainer. Load it in bash: eval "$(trainer completion bash)"
_trainer() {
    local line=${COMP_LINE:0:COMP_POINT} lead= i word
    local -a words
    read -a words <<< "$line"
    [[ $line == *[[:space:]] ]] && words+=("")
    word=${words[${#words[@]} - 1]}
    # Readline replaces the text after the last of these characters, unless the word is quoted.
    if [[ $word != [\'\"]* ]]; then
        for ((i = ${#word}; i > 0; i--)); do
            if [[ $COMP_WORDBREAKS == *"${word:i-1:1}"* ]]; then lead=${word:0:i}; break; fi
        done
    fi
    COMPREPLY=()
    while IFS= read -r word; do
        COMPREPLY+=("${word#"$lead"}")
    done < <(@ask@ bash "${words[@]:1}" 2> /dev/null)
    if ((${#COMPREPLY[@]} == 1)) && [[ $COMPREPLY != *[=./] ]]; then compopt +o nospace 2> /dev/null; fi
}
complete -o nospace -o nosort -F _trainer trainer 2> /dev/null || complete -o nospace -F _trainer trainer
"""

ZSH = r"""#compdef trainer
# Completes the words of trainer. Load it in zsh: eval "$(trainer completion zsh)"
_trainer() {
    local line word
    local -a whole open space
    for line in "${(@f)$(@ask@ zsh "${(@Q)words[2,CURRENT-1]}" "${(Q)PREFIX}" 2> /dev/null)}"; do
        [[ -n $line ]] || continue
        word=${line%%$'\t'*}
        line=${word//:/\\:}:${line#*$'\t'}
        if [[ $word == *[=./] ]]; then open+=("$line"); else whole+=("$line"); fi
    done
    [[ -n $compstate[quote] ]] || space=(-S ' ' -r ', ')  # a comma typed next replaces the space
    _describe -V 'word' whole $space -- open -S ''
}
if [[ $funcstack[1] == _trainer ]]; then
    _trainer "$@"
else
    (( $+functions[compdef] )) || { autoload -Uz compinit && compinit -i }
    compdef _trainer trainer
fi
"""

FISH = r"""# Completes the words of trainer. Load it in fish: trainer completion fish | source
function __trainer_complete
    set -l words (commandline -opc)
    set -l word (commandline -ct)
    set -e words[1]
    @ask@ fish $words "$word" 2>/dev/null
end
complete -c trainer -e
complete -c trainer -f -k -a '(__trainer_complete)'
"""


def main(argv: list[str]) -> int:
    """Run the command and return its exit code."""
    dashes = argv.index("--") if "--" in argv else len(argv)
    words, typed = argv[:dashes], argv[dashes + 1 :]
    if not words:
        raise UsageError(f"completion: which shell? `trainer completion bash`; allowed: {', '.join(SHELLS)}")
    shell, *more = words
    if shell not in SHELLS:
        raise unknown(f"completion {shell}", "no such shell", shell, SHELLS, "completion ")
    if more:
        raise refusal(more[0], "completion takes one shell", SHELLS)
    if dashes < len(argv):
        completion.main([shell, *(typed or [""])])
    else:
        sys.stdout.write(_script(shell))
    return 0


def _script(shell: str) -> str:
    """Return the script for a shell; it runs this installation with Python options for a fast start."""
    here = os.path.abspath(os.path.join(os.path.dirname(completion.__file__), "..", ".."))
    plugins = [folder for folder in sys.path if os.path.isdir(os.path.join(folder, "hydra_plugins"))]
    folders = list(dict.fromkeys([here, *plugins]))
    module = "trainer.terminal.completion"
    code = f"import sys; sys.path += {json.dumps(folders)}; from {module} import main; main(sys.argv[1:])"
    text = {"bash": BASH, "zsh": ZSH, "fish": FISH}[shell]
    return text.replace("@ask@", f"{shlex.quote(sys.executable)} -I -S -c {shlex.quote(code)}")
