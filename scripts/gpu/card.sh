# Sourced: where a machine with a card keeps what the program is loaded and linked with. WORK is a folder that goes
# again, PYTHON a Python that may have PyTorch.

# Where images for containers have the driver that the loader does not look for.
nvidia=/usr/local/nvidia
[ -d $nvidia/lib64 ] && export LD_LIBRARY_PATH=${LD_LIBRARY_PATH:-}:$nvidia/lib64
icd=$nvidia/share/vulkan/icd.d/nvidia_icd.json
[ -e $icd ] && export VK_DRIVER_FILES=${VK_DRIVER_FILES:-$icd}

# libdevice, which CubeCL's CUDA kernels are linked with: of a toolkit, or of PyTorch's wheels.
if [ -z "${CUDA_PATH:-}" ]; then
  wheels=$("${PYTHON:-python3}" -c 'import sysconfig; print(sysconfig.get_path("purelib"))' 2>/dev/null)
  for file in /usr/local/cuda*/nvvm/libdevice/libdevice.10.bc "$wheels"/nvidia/*/nvvm/libdevice/libdevice.10.bc \
    "$wheels"/triton/backends/nvidia/lib/libdevice.10.bc; do
    [ -e "$file" ] || continue
    mkdir -p "$WORK/cuda/nvvm/libdevice"
    cp "$file" "$WORK/cuda/nvvm/libdevice/"
    export CUDA_PATH=$WORK/cuda
    break
  done
fi
