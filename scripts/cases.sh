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

begun() { # PROCESS GLOB: waits for a file with something in it, as long as the process lives
    until [[ -n $(find $2 -size +0 2>/dev/null) ]]; do
        kill -0 "$1" 2>/dev/null || { echo "it ended before $2 was there" && return 1; }
        sleep 0.02
    done
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

# Image folders: two classes, dark and bright, 8x8.
pictures() { # FOLDER
    python3 - "$1" <<'EOF'
import pathlib, struct, sys, zlib
def png(path, level, i):
    rows = b"".join(b"\0" + bytes((level + (5 * x + 3 * y + i) % 23) % 256 for x in range(8) for _ in range(3)) for y in range(8))
    chunk = lambda kind, data: struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    head = struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))
for name, level in (("a", 30), ("b", 200)):
    for split, count in (("train", 10), ("test", 6)):
        folder = pathlib.Path(sys.argv[1], split, name)
        folder.mkdir(parents=True)
        for i in range(count):
            png(folder / f"{i:02}.png", level, i)
EOF
}
tiny=(--model mnist-cnn --width 4 --batch 8 --augment none --lr-max 0.05 --val 0)
clean() { "$sora" eval "$@" 2>stderr | awk '$1 == "clean" { print $2 }'; }
glance() { # RUN: the card of its report
    "$sora" report "$1" --no-compute >/dev/null 2>&1
    sed 's/<script.*<.script>//g; s/<[^>]*>/ /g' "$1/report.html" | tr -s ' \n' ' ' | grep -o "At a glance .\{300\}" | head -1
}
pictures d
pictures other
for i in 0 1 2 3 4 5; do cp other/test/a/0$i.png other/test/b/0$i.png; done
exits 0 "$sora" train --dataset folder:d "${tiny[@]}" --epochs 20 --out seen

# Settings that would train nothing.
no_update() {
    exits 2 train --accumulate 1000 --epochs 2 --out never && grep -q "no update" stderr || return 1
    exits 2 train --ema 1 --epochs 2 --out never && grep -q "untrained" stderr
}
check "a run without an update is refused" no_update

# Records.
another_set() {
    local own there
    own=$(clean seen --attacks clean) && there=$(clean seen --attacks clean --dataset folder:other) || return 1
    [[ $own != "$there" && $(ls seen/eval | wc -l) == 2 ]] || return 1
    glance seen | grep -q " $(printf %.1f "$own") clean %"
}
check "a record of another data set takes no place and is not shown" another_set
unfinished() {
    "$sora" train --dataset folder:d "${tiny[@]}" --epochs 100000 --out half >/dev/null 2>&1 &
    local process=$!
    begun $process half/metrics.jsonl || return 1
    kill -INT $process
    wait $process
    clean half --attacks clean >/dev/null
    grep -q "not the final ones" stderr || return 1
    local epochs
    epochs=$(($(wc -l <half/epochs.jsonl) + 1))
    # The same run to its end, with the record made on the way.
    exits 0 "$sora" train --dataset folder:d "${tiny[@]}" --epochs $epochs --out whole || return 1
    cp -r half/eval whole/
    glance whole | grep -q "Not measured yet"
}
check "a record of an unfinished run is not the result of the finished one" unfinished
many_names() {
    local list=clean,fgsm k
    for k in 1 2 3 5 7 10 20 30 40; do list=$list,pgd-$k,apgd-ce-$k,apgd-dlr-$k,apgd-t-$k; done
    exits 0 "$sora" eval seen --attacks $list --limit 2 --json && [[ $(wc -c <stdout) -gt 5000 ]]
}
check "a long list of attacks has its record" many_names
not_written() {
    # A file in the place of the folder: not even root can write there.
    mv seen/eval kept && echo mine >seen/eval
    local status=0
    exits 1 "$sora" eval seen --attacks clean,pgd-3 --json || status=1
    grep -q '"pgd-3"' stdout && grep -q "instead" stderr || status=1
    rm -f "$(sed -n 's/.*the record is in \(.*\) instead.*/\1/p' stderr)" seen/eval
    mv kept seen/eval
    exits 0 "$sora" eval seen --attacks clean --out elsewhere.json && [[ -s elsewhere.json ]] || status=1
    return $status
}
check "a result whose record cannot be written is shown" not_written
stale_images() {
    cp -r d moving
    exits 0 "$sora" train --dataset folder:moving "${tiny[@]}" --epochs 20 --out moved || return 1
    "$sora" eval moved --attacks clean,pgd-1000x900 --batch 1 >/dev/null 2>&1 &
    local process=$!
    begun $process 'moved/eval/state-*.jsonl' || return 1
    sleep 0.5
    kill -9 $process
    wait $process 2>/dev/null
    cp moving/test/a/* moving/test/b/
    [[ $(clean moved --attacks clean) == "$(clean moved --attacks clean --fresh)" ]]
}
check "an evaluation of changed images begins anew" stale_images

# Images.
left_out() {
    cp -r d odd && mkdir odd/train/b/more && cp odd/train/a/00.png odd/train/b/more/
    for ending in webp bmp tif gif jfif ppm; do cp odd/train/a/00.png odd/train/b/x.$ending; done
    exits 0 "$sora" data info folder:odd && grep -q "7 image files are left out" stderr
}
check "images that are left out are counted" left_out
changed_data() {
    local change
    for change in "cp now/train/a/00.png now/train/a/000.png" "mv now/train/a now/train/z; mv now/test/a now/test/z" \
        "cp -r now/train/b now/train/c; cp -r now/test/b now/test/c"; do
        rm -rf now going && cp -r d now
        "$sora" train --dataset folder:now "${tiny[@]}" --epochs 100000 --out going >/dev/null 2>&1 &
        local process=$!
        begun $process going/metrics.jsonl || return 1
        kill -INT $process
        wait $process
        eval "$change"
        exits 2 "$sora" resume going && grep -q "not those that the run began with" stderr || return 1
    done
}
check "a run does not go on with other images" changed_data

# Files of other programs.
imports() {
    local files=$here/crates/sora/tests/golden/checkpoints name
    take() { rm -f o.safetensors && "$sora" import "$files/$1" --image-size 8 --mean 0.5 --std 0.25 --out o.safetensors "${@:2}"; }
    exits 0 take average.pt && grep -q "under 'model.'" stderr && grep -q "passed over" stderr || return 1
    exits 2 take best.pt --model mnist-cnn && grep -q -- "--prefix" stderr || return 1
    exits 0 take best.pt --model mnist-cnn --prefix best || return 1
    for name in whole.pt whole_legacy.pt beside.pt; do exits 0 take $name --model mnist-cnn || return 1; done
    exits 2 take whole.pt --model senet18 && grep -q "it fits mnist-cnn of width 2" stderr
}
check "averages, whole modules and settings beside the weights are told apart" imports

# Weights that are not finite.
diverged() {
    local folder
    exits 1 "$sora" train --dataset folder:d --model preact-resnet18 --width 2 --batch 8 --augment none --val 0 \
        --weight-decay 10 --momentum 1 --lr-max 1000 --schedule constant --epochs 40 --out gone || return 1
    grep -q "diverged" stderr && [[ ! -e gone/model.safetensors && ! -e gone/summary.json ]] || return 1
    for folder in gone/checkpoints/*; do
        rm -f o.safetensors
        # An import refuses what is not finite.
        exits 0 "$sora" import "$folder/model.safetensors" --out o.safetensors || return 1
    done
}
check "a run that diverges keeps finite weights alone" diverged

exit $failed
