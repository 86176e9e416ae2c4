// The program on several ranks of this machine, for tests that kill, stop and resume them.
#pragma once

#include "distributed/groups.h"
#include "tests/recipes/spawn.h"

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <optional>
#include <sstream>
#include <string>
#include <vector>

namespace lectern::testing {

/// Words that start `ranks` ranks: more than there are cores if need be, and as root, which
/// mpirun refuses unless it is told twice (tests run in containers).
inline std::vector<std::string> mpirun(int ranks) {
  ::setenv("OMPI_ALLOW_RUN_AS_ROOT", "1", 1);
  ::setenv("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1", 1);
  return {"mpirun", "--oversubscribe", "--bind-to", "none", "-np", std::to_string(ranks)};
}

/// `lectern train` on several ranks.
class RanksChild : public Child {
 public:
  RanksChild(int ranks, const std::vector<std::string>& arguments)
      : Child(arguments, "", mpirun(ranks)) {}
  ~RanksChild() override {
    if (!running()) return;
    send(SIGTERM);  // mpirun then ends its ranks; killed, it could not
    wait();
  }

  /// Processes of the ranks that live, by rank.
  std::map<int, pid_t> rank_processes() const {
    std::map<int, pid_t> out;
    for (const auto& entry : std::filesystem::directory_iterator("/proc")) {
      const std::string name = entry.path().filename().string();
      if (name.find_first_not_of("0123456789") != std::string::npos) continue;
      const auto pid = static_cast<pid_t>(std::stol(name));
      if (parent_of(entry.path()) != process()) continue;
      if (const auto rank = rank_of(entry.path())) out[*rank] = pid;
    }
    return out;
  }

 private:
  static pid_t parent_of(const std::filesystem::path& proc) {
    std::ifstream file(proc / "stat");
    std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
    const auto end = text.rfind(')');  // the name before may hold anything
    if (end == std::string::npos) return -1;
    std::istringstream rest(text.substr(end + 1));
    std::string state;
    pid_t parent = -1;
    rest >> state >> parent;
    return state == "Z" ? -1 : parent;
  }
  static std::optional<int> rank_of(const std::filesystem::path& proc) {
    std::ifstream file(proc / "environ");
    for (std::string word; std::getline(file, word, '\0');)
      if (word.starts_with("OMPI_COMM_WORLD_RANK=")) return std::stoi(word.substr(21));
    return {};
  }
};

/// Whether a process is there and is no zombie.
inline bool lives(pid_t process) {
  std::ifstream file("/proc/" + std::to_string(process) + "/stat");
  std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  const auto end = text.rfind(')');
  return end != std::string::npos && end + 2 < text.size() && text[end + 2] != 'Z';
}

/// Whether to run the long form of a test.
inline bool is_long() { return std::getenv("LECTERN_LONG") != nullptr; }

}  // namespace lectern::testing
