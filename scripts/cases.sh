#!/bin/bash
# The program against small inputs that went wrong in the field: each case says what must hold.
# usage: scripts/cases.sh [path/to/sora]
set -u
here=$(cd "$(dirname "$0")/.." && pwd)
sora=$(realpath "${1:-$here/target/release/sora}")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
export SORA_DATA="$work/data"
failed=0

check() { # NAME COMMAND...: the command must succeed
    local name=$1
    shift
    if "$@"; then
        echo "ok      $name"
    else
        echo "FAILED  $name"
        failed=1
    fi
}

short=(--dataset synthetic --image-size 8 --model mnist-cnn --width 4 --batch 8 --augment none
    --limit-train 64 --limit-test 16 --lr-max 0.05 --val 0)

train() { "$sora" train "${short[@]}" "$@"; }
exits() { # STATUS COMMAND...
    local wanted=$1 got=0
    shift
    "$@" >stdout 2>stderr || got=$?
    ((got == wanted)) || { echo "exit $got instead of $wanted: $*" && cat stderr && return 1; }
}

# Log lines that cannot be written.
log_on_full_disk() { train --epochs 2 --out full 2>/dev/full && [[ -f full/model.safetensors ]]; }
reader_gone() {
    { sleep 0.3; "$sora" eval full --attacks clean,fgsm --save-adv --json >eval.json; echo $? >status; } 2>&1 | true
    sleep 2
    [[ $(<status) == 0 && -s eval.json ]]
}
check "training goes on when its log cannot be written" log_on_full_disk
check "an evaluation outlives the reader of its log" reader_gone

# A config file of another method or network.
other_method() {
    local method
    exits 0 train --method sora --epochs 1 --out first || return 1
    for method in pgd fgsm none; do
        exits 0 "$sora" train --config first/config.toml --method $method --out "first-$method" || return 1
    done
}
other_network() {
    exits 0 "$sora" train "${short[@]}" --model vit-tiny --width 3 --patch 4 --epochs 1 --out vit &&
        exits 0 "$sora" train --config vit/config.toml --model mnist-cnn --width 4 --out cnn
}
check "a config of another method trains" other_method
check "a config of another network trains" other_network

# Files of the user's.
files_stay() {
    local name
    echo important >notes.txt
    echo mine >notes.adv
    echo mine >fig.tmp
    echo mine >net.tmp
    echo mine >fig2.svg
    echo mine >net2.onnx
    exits 2 "$sora" eval first --attacks clean,fgsm --state notes.txt --save-adv || return 1
    exits 0 "$sora" plot curves first --out fig.svg || return 1
    exits 0 "$sora" export first --format onnx --out net.onnx || return 1
    exits 2 "$sora" plot curves first --out fig2.svg || return 1
    exits 2 "$sora" export first --format onnx --out net2.onnx || return 1
    [[ $(<notes.txt) == important ]] || return 1
    for name in notes.adv fig.tmp net.tmp fig2.svg net2.onnx; do
        [[ $(<$name) == mine ]] || { echo "$name is changed" && return 1; }
    done
}
check "files of others stay" files_stay

# Epsilon in the wrong units.
units() {
    exits 2 train --epsilon 8 --epochs 1 --out eight && grep -q "8/255" stderr || return 1
    exits 2 "$sora" eval first --epsilon 8 --attacks clean && grep -q "8/255" stderr || return 1
    sed 's/^epsilon = .*/epsilon = "8"/' first/config.toml >eight.toml
    exits 2 "$sora" train --config eight.toml --out eight && grep -q "8/255" stderr
}
check "an l-inf epsilon of 1 or more is questioned" units

# Logs with odd numbers.
odd_logs() {
    local most=18446744073709551615
    sed -i "s/\"epoch\":0/\"epoch\":$most/" first/epochs.jsonl
    exits 0 "$sora" watch first --once && exits 0 "$sora" diagnose first
}
check "odd logs are watched" odd_logs

# Escape characters of files.
escapes() {
    sed -i 's/^method = .*/method = "\\u001b[2Jsora"/' first/config.toml
    "$sora" diagnose first >shown 2>&1
    "$sora" watch first --once >>shown 2>&1
    "$sora" eval first --attacks clean >>shown 2>&1
    ! grep -q $'\x1b' shown
}
check "escape characters of files reach no terminal" escapes

exit $failed
