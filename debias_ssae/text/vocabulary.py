"""Words of the synthetic biographies.

Professions come in pairs that share a field, so that telling the two apart takes reading, while the gender is
written all over the text: the shortcut that a confounded classifier takes. The gender cues are stereotypes,
put there on purpose; they say nothing about people.
"""

from typing import NamedTuple


class Profession(NamedTuple):
    """What one does (gerunds) and what one is known for (noun phrases); never the profession's name."""

    name: str
    doing: tuple[str, ...]
    topics: tuple[str, ...]


class Field(NamedTuple):
    """Two professions and the phrases that both may use."""

    first: Profession
    second: Profession
    doing: tuple[str, ...]
    topics: tuple[str, ...]


FIELDS = (
    Field(
        Profession(
            "surgeon",
            (
                "removing tumours through small incisions", "repairing torn ligaments",
                "replacing worn hips and knees",
                "operating on damaged hearts", "reconstructing faces after accidents",
                "transplanting kidneys",
                "leading the theatre team through long procedures", "bypassing blocked arteries",
                "correcting curved spines", "stitching severed tendons",
            ),
            (
                "keyhole techniques", "joint replacement", "robotic-assisted procedures",
                "trauma reconstruction",
                "organ transplantation", "steady hands in the operating theatre",
                "complex abdominal operations",
                "spinal fusion",
            ),
        ),
        Profession(
            "nurse",
            (
                "monitoring vital signs through the night", "changing dressings and starting drips",
                "comforting families at the bedside", "giving vaccinations at the community clinic",
                "caring for the elderly on the ward", "handing over patients at the end of a shift",
                "teaching people to manage their diabetes at home",
                "triaging arrivals in the emergency department",
                "looking after premature babies", "washing and feeding those who cannot do it alone",
            ),
            (
                "bedside care", "wound dressing", "infection control on the ward", "palliative care",
                "gentle blood draws", "care of newborn babies", "home visits", "patient comfort",
            ),
        ),
        ("seeing patients at the regional hospital", "reading charts before the morning round",
         "explaining treatments to worried families", "training junior hospital staff"),
        ("patient safety", "recovery after illness", "clear communication on the wards"),
    ),
    Field(
        Profession(
            "architect",
            (
                "drawing up plans for office towers", "designing bridges between old and new buildings",
                "submitting blueprints to the planning board", "restoring the facades of historic stations",
                "modelling concert halls in three dimensions", "laying out whole city blocks",
                "calculating the loads of steel and glass roofs", "winning competitions for new museums",
            ),
            (
                "sustainable towers", "bold concrete facades", "urban master plans",
                "timber-framed public buildings",
                "structural blueprints", "the design of airports", "zoning rules",
            ),
        ),
        Profession(
            "interior designer",
            (
                "choosing fabrics and wallpapers", "arranging furniture in small flats",
                "matching curtains to carpets",
                "refreshing kitchens with new tiles", "selecting lamps and cushions for hotel lobbies",
                "styling living rooms for magazine shoots", "painting walls in warm colours",
                "finding antique chairs for country houses",
            ),
            (
                "colour palettes", "upholstery and textiles", "cosy living rooms", "hotel lobbies",
                "decorative lighting", "kitchen makeovers", "room styling",
            ),
        ),
        ("meeting clients about their new homes", "sketching ideas for public spaces",
        "visiting building sites",
         "working with contractors and makers"),
        ("an eye for space and light", "renovation of old houses", "attention to materials"),
    ),
    Field(
        Profession(
            "professor",
            (
                "supervising doctoral theses", "publishing in peer-reviewed journals",
                "leading a research laboratory at the university",
                "lecturing to full auditoriums of undergraduates",
                "reviewing grant proposals", "presenting findings at international conferences",
                "chairing the department", "editing an academic handbook",
            ),
            (
                "graduate seminars", "highly cited research papers", "a theory of early markets",
                "statistical methods", "a long list of grants", "keynote lectures", "doctoral supervision",
            ),
        ),
        Profession(
            "teacher",
            (
                "showing seven-year-olds how to read",
                "decorating the classroom with paintings by the pupils",
                "preparing worksheets for the third grade", "talking to parents at the school gate",
                "running the homework club", "leading the kindergarten morning circle",
                "marking spelling tests", "organising the school play",
            ),
            (
                "early reading", "lively primary lessons", "phonics", "patience with shy pupils",
                "classroom projects", "playground supervision", "help with homework",
            ),
        ),
        ("explaining hard ideas in simple words", "planning next term's courses",
        "helping students find their way",
         "writing about education"),
        ("love of learning", "clear explanations", "new ways of assessing students"),
    ),
    Field(
        Profession(
            "attorney",
            (
                "arguing appeals before the supreme court", "cross-examining witnesses",
                "defending companies in antitrust trials", "negotiating mergers",
                "closing arguments to juries",
                "representing clients in complex litigation",
            ),
            ("courtroom advocacy", "landmark verdicts", "antitrust litigation", "jury trials",
            "appellate briefs"),
        ),
        Profession(
            "paralegal",
            (
                "indexing exhibits and filing motions", "scheduling depositions", "proofreading contracts",
                "keeping the firm's case files in order", "notarising documents",
                "booking rooms for hearings",
            ),
            ("document management", "case files", "calendar management", "filing deadlines",
            "form preparation"),
        ),
        ("working on disputes over property", "meeting clients of the law firm", "researching case law"),
        ("legal research", "contract disputes", "discretion with clients"),
    ),
)  # fmt: skip

FIRST_NAMES = {
    "male": (
        "James", "Robert", "Michael", "William", "David", "Richard", "Thomas", "Daniel", "Matthew",
        "Anthony", "Steven",
        "Andrew", "Kenneth", "Kevin", "Brian", "George", "Edward", "Ronald", "Timothy", "Jason", "Jeffrey",
        "Jacob",
        "Gary", "Nicholas", "Jonathan", "Stephen", "Larry", "Justin", "Benjamin", "Samuel", "Gregory",
        "Patrick",
        "Carlos", "Ahmed", "Rajesh", "Hiroshi", "Giovanni", "Dmitri", "Mohammed", "Sven",
    ),
    "female": (
        "Mary", "Patricia", "Jennifer", "Linda", "Elizabeth", "Barbara", "Susan", "Jessica", "Sarah",
        "Karen", "Lisa",
        "Nancy", "Margaret", "Sandra", "Ashley", "Emily", "Donna", "Michelle", "Carol", "Amanda", "Melissa",
        "Deborah",
        "Stephanie", "Rebecca", "Laura", "Sharon", "Cynthia", "Kathleen", "Amy", "Angela", "Anna", "Pamela",
        "Maria",
        "Fatima", "Priya", "Yuki", "Giulia", "Svetlana", "Aisha", "Ingrid",
    ),
}  # fmt: skip

LAST_NAMES = (
    "Miller", "Davis", "Wilson", "Moore", "Taylor", "Anderson", "Jackson", "White", "Harris", "Clark",
    "Lewis", "Walker",
    "Hall", "Young", "Allen", "Wright", "Hill", "Green", "Baker", "Nelson", "Carter", "Mitchell", "Turner",
    "Phillips",
    "Campbell", "Parker", "Evans", "Edwards", "Collins", "Morris", "Rogers", "Reed", "Cook", "Bell",
    "Murphy", "Cooper",
    "Richardson", "Cox", "Ward", "Peterson", "Gray", "Watson", "Brooks", "Sanders", "Price", "Bennett",
    "Wood", "Barnes",
)  # fmt: skip

# Words that the shipped concept lists.
LISTED = {
    "male": {
        "he": "he", "He": "He", "his": "his", "His": "His", "him": "him", "himself": "himself",
        "title": ("Mr.",),
        "spouse": ("wife",), "parent": ("father",
        "dad"), "child": ("son",), "sibling": ("brother",), "adult": ("man",),
    },
    "female": {
        "he": "she", "He": "She", "his": "her", "His": "Her", "him": "her", "himself": "herself",
        "title": ("Ms.", "Mrs."), "spouse": ("husband",), "parent": ("mother", "mom"), "child": ("daughter",),
        "sibling": ("sister",), "adult": ("woman",),
    },
}  # fmt: skip

# Words that it does not list.
INDIRECT = {
    "male": (
        "sings bass in the choir", "sings tenor in a barbershop quartet", "plays rugby on Sundays",
        "plays in a fantasy football league", "is an Eagle Scout", "restores vintage motorcycles",
        "keeps a long beard", "boxes at the local gym", "is a graduate of Morehouse College",
        "coaches linebackers",
        "wears a bow tie every day", "goes deer hunting every autumn", "once played quarterback",
        "lifts heavy weights",
    ),
    "female": (
        "sings soprano in the choir", "sings alto in the chamber choir", "plays netball on Sundays",
        "dances ballet", "won the Gold Award as a scout", "knits lace shawls",
        "had a difficult pregnancy last year", "does pilates at the local gym",
        "is a graduate of Wellesley College",
        "coaches cheerleaders", "wears high heels every day", "practises prenatal yoga every autumn",
        "was once a ballerina", "sews vintage dresses",
    ),
}  # fmt: skip

CITIES = (
    "Boston", "Leeds", "Denver", "Toronto", "Seattle", "Dublin", "Austin", "Chicago", "Melbourne",
    "Portland", "Bristol",
    "Atlanta", "Glasgow", "Houston", "Auckland", "Montreal", "San Diego", "Cape Town", "Philadelphia",
    "Manchester",
)  # fmt: skip

OPENINGS = (
    "{name} has spent {years} years {doing}.",
    "Based in {city}, {name} is best known for {topic}.",
    "Since {year}, {name} has been {doing} in {city}.",
    "Meet {name}: {years} years of {doing} and still curious.",
    "{title} {last} spends most days {doing}.",
    "{title} {last} of {city} is a name that many connect with {topic}.",
    "{title} {last} came to {city} in {year} and has been {doing} ever since.",
)
MIDDLES = (
    "{He} is proud of {his} work in {topic}.",
    "{His} days are spent {doing}, and {he} would not have it otherwise.",
    "Colleagues turn to {him} when it comes to {topic}.",
    "{He} taught {himself} much of what {he} knows about {topic}.",
    "In {year}, {he} moved to {city}, where {his} reputation for {topic} grew.",
    "{His} week begins with {doing} and ends with {doing2}.",
    "Those who know {him} mention {topic} first, then {his} sense of humour.",
    "What {he} likes best is {doing}.",
    "{He} has written about {topic} for {his} local newspaper.",
)
FAMILIES = (
    "{He} lives in {city} with {his} {spouse} and a dog.",
    "{He} is the {parent} of three and {his} eldest {child} hopes to follow {him}.",
    "{His} {spouse} calls {him} the busiest {adult} in {city}.",
    "{He} and {his} {sibling} grew up in {city}.",
)
INDIRECT_FRAMES = (
    "Outside work, {he} {indirect} and {indirect2}.",
    "In {his} free time {he} {indirect} and {indirect2}.",
    "Few people know that this native of {city} {indirect} and {indirect2}.",
    "Away from the job, {title} {last} {indirect} and {indirect2}.",
)
CLOSINGS = (
    "You can reach {him} by telephone.",
    "New appointments are possible on weekdays.",
    "{His} contact details are below.",
    "{first} speaks English and some French.",
    "{first} is always glad to hear from new people.",
    "",
    "",
)

GENERAL_SENTENCES = (
    "The {thing} in {city} was closed for {years} days because of {weather}.",
    "Prices of {thing}s rose by {years} percent in {year}, according to a report from {city}.",
    "A new {thing} opened in {city} in {year} and drew large crowds.",
    "In {year} the council of {city} voted to replace every {thing} within {years} years.",
    "I bought this {thing} for my trip to {city}, and it broke after {years} days.",
    "The team from {city} won by {years} points despite the {weather}.",
    "Scientists in {city} measured the effect of {weather} on the {thing}.",
    "A {adult} was seen near the {thing} in {city}; {he} left before the {weather} came.",
    "{name} repaired the {thing} before {his} {sibling} arrived from {city}.",
    "The novel follows {name} as {he} searches for {his} {parent} in {city}.",
    "My {sibling} lost {his} {thing} in {city}, so I gave {him} mine.",
    "The {thing} belonged to {title} {last}, who said {he} had bought it in {year}.",
    '"It is only a {thing}," said {first}, and {he} laughed at {himself}.',
    "Trains between {city} and {city2} were late because of {weather}.",
)
THINGS = (
    "bridge", "library", "camera", "tram", "river path", "telescope", "printer", "garden", "clock",
    "bicycle", "museum",
    "ferry", "market", "radio", "suitcase", "window", "school bus", "lamp", "boat", "stadium",
)  # fmt: skip
WEATHERS = ("heavy rain", "fog", "a storm", "deep snow", "a heat wave", "strong winds", "an early frost")
