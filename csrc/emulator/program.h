// A kernel decoded for execution: every operand is an offset, every opcode a function.
#pragma once
#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "module.h"
#include "types.h"

namespace rnk::emu {

struct Warp;
struct Instr;
// mask: lanes that execute (active and guard true); never 0.
using Handler = void (*)(Warp& w, const Instr& in, uint32_t mask);

enum class OpClass : uint8_t {
  kInteger,
  kFp32,
  kFp64,
  kHalf,
  kConvert,
  kSpecialFunction,
  kMove,
  kPredicate,
  kLoad,
  kStore,
  kAtomic,
  kAsyncCopy,
  kMatrix,
  kMatrixMove,
  kShuffle,
  kBarrier,
  kControl,
  kCount
};
const char* op_class_name(OpClass c);

// Lane vectors live at byte offsets of the warp's register file or of the kernel's constants;
// predicates are one 32-bit lane mask in the register file.
struct Operand {
  enum Kind : uint8_t { kNone, kRegister, kConstant, kPredicate } kind = kNone;
  uint8_t width = 0;  // bytes a lane
  bool negated = false;
  uint32_t offset = 0;
};

struct Instr {
  Handler run = nullptr;
  const Operand* ops = nullptr;  // destinations first
  int64_t imm = 0;               // address offset, lookup table, opcode-specific
  const void* aux = nullptr;     // opcode-specific decoded data, owned by the Kernel
  uint32_t first_op = 0;
  uint32_t target = 0;  // branch or call target
  int32_t guard = -1;   // offset of the predicate, or -1
  uint16_t op_count = 0;
  bool guard_negated = false;
  Space space = Space::kGeneric;
  Type type = Type::kNone, type2 = Type::kNone;
  uint8_t vec = 1;              // elements of a vector access
  uint8_t mode = 0, mode2 = 0;  // opcode-specific
  uint32_t flags = 0;
  OpClass cls = OpClass::kMove;
  uint32_t line = 0;
  int32_t source_file = 0, source_line = 0;
};

// Instr::flags
constexpr uint32_t kFtz = 1, kSat = 2, kStrong = 4, kAcquire = 8, kRelease = 16, kNanResult = 32,
                   kXorSign = 64, kRelu = 128, kSatFinite = 256, kBlockScope = 512;
// Of control flow: ends the thread or its function, jumps, calls, waits for other threads; the last
// is set where Kernel::tail tells who went around (control_flow.h).
constexpr uint32_t kLeaves = 1024, kBranches = 2048, kCalls = 4096, kSynchronises = 8192,
                   kHasTail = 16384;

// Special registers are ordinary lane vectors filled when a warp starts.
enum class Special : uint8_t {
  kTidX,
  kTidY,
  kTidZ,
  kNtidX,
  kNtidY,
  kNtidZ,
  kCtaidX,
  kCtaidY,
  kCtaidZ,
  kNctaidX,
  kNctaidY,
  kNctaidZ,
  kLaneid,
  kWarpid,
  kNwarpid,
  kLanemaskEq,
  kLanemaskLt,
  kLanemaskLe,
  kLanemaskGt,
  kLanemaskGe,
  kDynamicSmem,
  kTotalSmem,
  kReservedSmem,
  kOne,
  kZero,
  kCount
};

struct CallTarget {
  struct Copy {
    uint32_t from, to, bytes;
  };  // offsets of the lane's local memory
  std::string name;
  std::vector<Copy> arguments, results;
};

struct Kernel {
  std::string name;
  std::shared_ptr<const Module> module;
  const Function* entry = nullptr;
  std::vector<Instr> code;
  std::vector<Operand> operands;
  std::vector<uint64_t> constants;  // 32-lane vectors, 64-byte aligned through constant_base()
  std::vector<std::shared_ptr<void>> owned;
  std::vector<uint32_t> param_offsets;
  uint32_t param_bytes = 0;
  uint32_t register_bytes = 0;
  uint32_t local_bytes = 0;
  uint32_t static_shared = 0;
  uint32_t dynamic_shared_align = 1;
  Handler tail = nullptr;  // of the instruction that control_flow.h wraps
  std::array<int32_t, static_cast<size_t>(Special::kCount)> special_offset;  // -1: unused
  const char* constant_base() const {
    auto p = reinterpret_cast<uintptr_t>(constants.data());
    return reinterpret_cast<const char*>((p + 63) & ~uintptr_t{63});
  }
};

// Addresses that are neither shared nor global carry a tag in their top byte.
constexpr int kTagShift = 56;
constexpr uint64_t kSharedTag = 1, kLocalTag = 2, kParamTag = 3;
// Shared memory begins here, behind what the system keeps since sm_80: an address whose base was
// forgotten is out of bounds instead of right by chance.
constexpr uint32_t kSharedBase = 1024;
constexpr uint64_t kOffsetMask = (uint64_t{1} << 32) - 1;

}  // namespace rnk::emu
